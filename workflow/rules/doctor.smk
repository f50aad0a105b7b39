# What would fail in hour three, told in the first minute.


localrules:
    doctor,


# no output, not even a benchmark: it looks anew each time
rule doctor:
    log:
        "logs/doctor.log",
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
