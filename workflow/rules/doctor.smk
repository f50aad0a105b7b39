# Problems that would stop a run after hours, reported within a minute.


# no output and no benchmark, so that it runs each time it is asked for
rule doctor:
    log:
        DOCTOR_LOG,
    localrule: True
    conda:
        "../../envs/doctor.yaml"
    threads: 1
    resources:
        mem_mb=8000,
        runtime=10,
        gpu=0,
    params:
        plan=lambda w: tables.doctor(PLAN, str(ROOT / "requirements.txt")),
        page=DOCTOR_PAGE,
        shown=IN_MODULE,
    script:
        "../../scripts/doctor.py"
