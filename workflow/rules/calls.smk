# Scores -> a call per spot, by a threshold that looks at the scores alone.


rule call_spots:
    input:
        scores="results/{study}/{task}/{fold}/{encoder}/{method}/seed{seed}/scores.tsv",
    output:
        calls="results/{study}/{task}/{fold}/{encoder}/{method}/seed{seed}/calls.tsv",
        threshold="results/{study}/{task}/{fold}/{encoder}/{method}/seed{seed}/threshold.json",
    log:
        "logs/{study}/call_spots/{task}/{fold}/{encoder}/{method}/seed{seed}.log",
    benchmark:
        "benchmarks/{study}/call_spots/{task}/{fold}/{encoder}/{method}/seed{seed}.tsv"
    conda:
        "../../envs/data.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=10,
        gpu=0,
    params:
        code=code("call_spots"),
    script:
        "../../scripts/call_spots.py"
