# Raw files. Those of the public sections are downloaded (or taken from `data_root`), those of the demo cohort are simulated,
# in the vendors' own layouts.


# a published file, or an archive of several; on the local machine, since cluster nodes often have no network
rule fetch_file:
    output:
        file="{download}",
    log:
        "logs/fetch_file/{download}.log",
    benchmark:
        "benchmarks/fetch_file/{download}.tsv"
    wildcard_constraints:
        download=one_of(DOWNLOADS),
    localrule: True
    conda:
        "../../envs/data.yaml"
    threads: 1
    resources:
        mem_mb=memory(1000),
        runtime=600,
        downloads=1,
        gpu=0,
    params:
        url=lambda w: DOWNLOADS[w.download].url,
        sha256=lambda w: DOWNLOADS[w.download].sha256,
        mirror=lambda w: DOWNLOADS[w.download].mirror,
        lock=lambda w: DOWNLOADS[w.download].lock,
    script:
        "../../scripts/fetch_file.py"


rule unpack_member:
    input:
        archive=lambda w: MEMBERS[w.packed].archive,
    output:
        file="{packed}",
    log:
        "logs/unpack_member/{packed}.log",
    benchmark:
        "benchmarks/unpack_member/{packed}.tsv"
    wildcard_constraints:
        packed=one_of(MEMBERS),
    conda:
        "../../envs/data.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=240,
        gpu=0,
    params:
        member=lambda w: MEMBERS[w.packed].member,
        password=lambda w: MEMBERS[w.packed].password,
    script:
        "../../scripts/unpack_member.py"


rule simulate_cohort:
    output:
        sections.demo_files(PLAN),
    log:
        "logs/simulate_cohort.log",
    benchmark:
        "benchmarks/simulate_cohort.tsv"
    conda:
        "../../envs/data.yaml"
    threads: 4
    resources:
        mem_mb=memory(4000),
        runtime=10,
        gpu=0,
    params:
        folder=lambda w: paths.DEMO,
        seed=SETTINGS["demo_seed"],
        code=code("simulate_cohort"),
    script:
        "../../scripts/simulate_cohort.py"
