# Problems that would stop a run after hours, reported within a minute.


localrules:
    doctor,


# no output and no benchmark, so that it runs each time it is asked for
rule doctor:
    log:
        DOCTOR_LOG,
    conda:
        "../../envs/doctor.yaml"
    threads: 1
    resources:
        mem_mb=8000,
        runtime=10,
        gpu=0,
    params:
        plan=lambda w: tables.doctor(
            PLAN, str(Path(workflow.basedir) / "requirements.txt")
        ),
        page=DOCTOR_PAGE,
    script:
        "../../scripts/doctor.py"
