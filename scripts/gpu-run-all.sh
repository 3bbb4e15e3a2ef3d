#!/usr/bin/env bash
# Runs all tests and benchmarks of this folder that the machine supports, and writes a report.
#
#   ./run-all OUT [--minutes N] [--text FILE]    default: 8 minutes, and the project's sources as training text
#
# OUT/report.md is for people, OUT/summary.json for programs, and OUT/logs has the output of each step. Nothing is
# written elsewhere, and no setting of a GPU is changed. A step that fails, hangs or cannot run does not stop the
# others.
#
# Exit status: 0 if no step failed, 1 if one did, 2 for wrong usage.
set -uo pipefail

usage() {
    echo "usage: $0 OUT [--minutes N] [--text FILE]" >&2
    exit 2
}

out='' minutes=8 text=''
while (($# > 0)); do
    case $1 in
        --minutes) minutes=${2:-} && shift ;;
        --text) text=${2:-} && shift ;;
        -*) usage ;;
        *) [[ -z $out ]] || usage && out=$1 ;;
    esac
    shift || usage
done
[[ -n $out && $minutes =~ ^[1-9][0-9]*$ ]] || usage

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if ! mkdir -p "$out/logs" "$out/tmp" || ! out=$(cd "$out" && pwd) || [[ ! -w $out/tmp ]]; then
    echo "$0: cannot write to $out" >&2
    exit 2
fi
text=$(realpath -- "${text:-$here/text/sources.txt}")
if [[ ! -f $text || ! -r $text ]]; then
    echo "$0: cannot read $text" >&2
    exit 2
fi
bin=$here/bin
# Caches and temporary files go to OUT: those of the driver and of PyTorch would otherwise go to HOME.
export TMPDIR=$out/tmp HOME=$out/tmp XDG_CACHE_HOME=$out/tmp CUDA_CACHE_PATH=$out/tmp TRITON_CACHE_DIR=$out/tmp/triton
export TORCHINDUCTOR_CACHE_DIR=$out/tmp/inductor CRITERION_HOME=$out/criterion PYTHONDONTWRITEBYTECODE=1
# Paths of the files that tests read and of the programs that they run.
export CARGO_MANIFEST_DIR=$here IRONWARP_BIN=$bin/ironwarp IRONWARP_EMULATOR=$bin/libcuda_emulator.so
export RUST_BACKTRACE=0 NO_COLOR=1
# The commit that the results of benchmarks name.
IRONWARP_COMMIT=$(sed -n 's/^commit  //p' "$here/MANIFEST")
export IRONWARP_COMMIT
# A hanging kernel must be reported before the step's time limit.
export IRONWARP_CUDA_TIMEOUT=${IRONWARP_CUDA_TIMEOUT:-20}

# The results of each step, by index.
names=() statuses=() reasons=() durations=() logs=() counts=()
gpu='' no_gpu=''

# Prints text as a JSON string; control characters, which JSON does not allow, are replaced by spaces.
json() {
    local text=${1//\\/\\\\}
    text=${text//\"/\\\"}
    printf '"%s"' "$(tr '\000-\037' ' ' <<<"$text" | sed 's/ *$//')"
}

write_summary() {
    local i failed=0 passed=0 step separator=
    {
        printf '{\n  "commit": %s,\n  "gpu": %s,\n' "$(json "$(sed -n 's/^commit  //p' "$here/MANIFEST")")" \
            "$([[ -n $gpu ]] && json "$gpu" || echo null)"
        printf '  "no_gpu": %s,\n' "$([[ -n $no_gpu ]] && json "$no_gpu" || echo null)"
        printf '  "seconds": %d,\n  "steps": [' $SECONDS
        for i in "${!names[@]}"; do
            step=
            if [[ -n ${counts[i]} ]]; then
                read -r p f s <<<"${counts[i]}"
                passed=$((passed + p)) failed=$((failed + f))
                step=", \"tests\": {\"passed\": $p, \"failed\": $f, \"skipped\": $s}"
            fi
            printf '%s\n    {"name": %s, "status": "%s", "reason": %s, "seconds": %d, "log": %s%s}' "$separator" \
                "$(json "${names[i]}")" "${statuses[i]}" "$(json "${reasons[i]}")" "${durations[i]}" \
                "$([[ -n ${logs[i]} ]] && json "${logs[i]}" || echo null)" "$step"
            separator=,
        done
        printf '\n  ],\n  "tests": {"passed": %d, "failed": %d}\n}\n' $passed $failed
    } >"$out/summary.json.part"
    mv "$out/summary.json.part" "$out/summary.json"
}

# Records a step: name, status, reason, seconds, log, counts of tests.
note() {
    names+=("$1") statuses+=("$2") reasons+=("$3") durations+=("$4") logs+=("$5") counts+=("$6")
    printf '%-28s %-8s %4d s  %s\n' "$1" "$2" "$4" "$3"
    # Written after each step, so that an interrupted run leaves the results so far.
    write_summary
}

skip() { note "$1" skipped "$2" 0 '' ''; }

# Counts of libtest in a log: passed, failed, and tests that skipped themselves.
count_tests() {
    awk '/test result: / {
             for (i = 2; i <= NF; i++) { if ($i == "passed;") p += $(i-1); if ($i == "failed;") f += $(i-1) }
             found = 1
         }
         /: needs (the emulated GPU|more memory)/ { s++ }
         END { if (found) print p - s, f + 0, s + 0 }' "$1"
}

# Prints the last line of a log that is not blank.
last_line() { grep -v '^ *$' "$1" | tail -n 1 | cut -c -300; }

# Prints the line of a log that best explains a failure.
failure_line() {
    local line
    # The message of a panic is on the following line.
    line=$(grep -E -A1 '^error: |panicked at|files failed|ERROR SUMMARY|^[A-Za-z]*Error: ' "$1" |
        grep -Ev 'panicked at|^--$|^note: |^$' | tail -n 1)
    [[ -n $line ]] || line=$(last_line "$1")
    printf '%.300s' "$line"
}

# step NAME SECONDS COMMAND...: runs a command with a time limit, and returns its exit status. If it fails and its
# output matches the pattern in $absent, a prerequisite is missing, and the step counts as skipped.
step() {
    local name=$1 limit=$2 log=logs/$1.log start=$SECONDS left=$((60 * minutes - SECONDS)) code reason='' status=passed
    local over="the limit of $minutes minutes is reached"
    shift 2
    if ((left < 5)); then
        skip "$name" "$over"
        return 1
    fi
    # Messages of the shell, such as about a segmentation fault, go to the log, too.
    {
        (cd "$out/tmp" && exec timeout --kill-after=5 $((limit < left ? limit : left)) "$@")
    } >"$out/$log" 2>&1 </dev/null
    code=$?
    if ((code == 124 || code == 137)) && ((left < limit)); then
        status=skipped reason="not finished when $over"
    elif ((code == 124 || code == 137)); then
        # Not failure_line: an unfinished program has not printed why, and tests print panics that they expect.
        status=failed reason="did not finish within $limit s; its last line is: $(last_line "$out/$log")"
    elif ((code != 0)) && [[ -n ${absent:-} ]] &&
        reason=$(grep -E "$absent" "$out/$log" | tail -n 1) && [[ -n $reason ]]; then
        status=skipped
    elif ((code != 0)); then
        status=failed reason="exit status $code: $(failure_line "$out/$log")"
    else
        reason=$(grep -E '[0-9]+ files passed|^Within the bounds' "$out/$log" | tail -n 1)
    fi
    note "$name" $status "$reason" $((SECONDS - start)) "$log" "$(count_tests "$out/$log")"
    return $code
}

# --nocapture: tests print their measurements and why they skip.
tests() {
    local name=$1 limit=$2 program=$3
    shift 3
    step "$name" "$limit" "$bin/$program" --nocapture "$@"
}

instructions() { CARGO_MANIFEST_DIR=$here/emulator/driver tests instructions 120 instructions; }

find_gpu() {
    if absent='^error: no GPU|^error: no CUDA driver| is too old: ' \
        step device 60 "$bin/ironwarp" info --device cuda --json; then
        gpu=$(sed -n 's/.*"gpu":{[^}]*"name":"\([^"]*\)".*/\1/p' "$out/logs/device.log")
        return
    fi
    no_gpu=$(sed -n 's/^error: //p' "$out/logs/device.log" | head -n 1)
    no_gpu=${no_gpu:-the GPU does not respond}
}

facts_of_gpu() {
    local fields=name,driver_version,vbios_version,memory.total,memory.used,ecc.mode.current,mig.mode.current,pstate
    fields+=,clocks.sm,clocks.mem,clocks.max.sm,clocks.max.mem,clocks_event_reasons.active
    fields+=,power.draw,power.limit,temperature.gpu
    if ! command -v nvidia-smi >/dev/null; then
        skip nvidia-smi 'no nvidia-smi in PATH'
    else
        step nvidia-smi 20 nvidia-smi --query-gpu=$fields --format=csv
    fi
}

# A few small tests of every family, because the tools slow kernels down by a factor of 100.
sanitize() {
    local tool sanitizer
    local filters=(gelu::forward grad_norm::the_norm_is_finite adamw::a_bad_step embedding::an_invalid_id
        embedding::dwpe_past_t layernorm::non_finite cross_entropy::formula::any_negative
        cross_entropy::loss_sum_propagates attention::equal_keys attention::backward::equal_tokens
        attention_decode::one_position matmul::non_finite sampling::greedy_and graph::a_replay model::a_resumed_trainer)
    # The toolkit is often not in PATH.
    sanitizer=$(PATH=$PATH:/usr/local/cuda/bin command -v compute-sanitizer)
    for tool in memcheck racecheck synccheck initcheck; do
        if [[ -z $sanitizer ]]; then
            skip "compute-sanitizer-$tool" 'no compute-sanitizer in PATH or /usr/local/cuda'
        elif [[ -n $no_gpu ]]; then
            skip "compute-sanitizer-$tool" 'no GPU'
        else
            step "compute-sanitizer-$tool" 60 "$sanitizer" --tool "$tool" --error-exitcode 99 "$bin/cuda" --nocapture \
                --test-threads 1 "${filters[@]}"
        fi
    done
}

bench() {
    local why=
    if [[ -n $no_gpu ]]; then
        skip bench 'no GPU'
    elif [[ $gpu == Emulated* ]]; then
        skip bench 'times of the emulated GPU are meaningless'
    else
        # All shapes are measured first, because PyTorch takes a while to compile each of its peers.
        step bench 120 "$bin/ironwarp" bench --device cuda --ms 200 --out "$out/bench"
        if ! command -v python3 >/dev/null; then
            why='no python3 in PATH'
        elif absent=Error: step pytorch 60 \
            python3 -c 'import torch; print(torch.__version__); torch.zeros(1).cuda()'; then
            step bench-peers 200 "$bin/ironwarp" bench --device cuda --ms 200 --model gpt2-124M --peers python3 \
                --out "$out/bench-peers"
        else
            why='PyTorch does not run'
        fi
        [[ -z $why ]] || skip bench-peers "$why"
    fi
}

# Chooses the training run. PyTorch trains the same steps, after compiling for about a minute. At 300,000 tokens per
# second, 200 steps of both take 1.4 s per 1,024 tokens of a step, so the remaining time determines the tokens per step.
choose_training() {
    local left=$((60 * minutes - SECONDS))
    model=gpt2-124M steps=200 tokenizer=gpt2 batch=16 context=1024 accumulate=1
    ((left < 150)) || accumulate=2
    ((left < 240)) || accumulate=4
    [[ $gpu != Emulated* ]] || model=tiny steps=8
    model=${IRONWARP_TRAIN_MODEL:-$model} steps=${IRONWARP_TRAIN_STEPS:-$steps}
    [[ $model != tiny ]] || tokenizer=bytes batch=2 context=32 accumulate=2
}

# Starts a run at step 0, with the largest micro-batch that fits in memory.
start_training() {
    local data=$out/train-text
    rm -rf "$data"
    # The tokenizer would take a name that contains "val" for validation data.
    ln -sfn "$text" "$out/tmp/text.txt"
    step train-text 60 "$bin/ironwarp" tokenize "$out/tmp/text.txt" --tokenizer "$tokenizer" --out "$data" || return
    flags=(--model "$model" --data "$data/text_train_000000.bin" --val-fraction 0 --order sequential
        --context "$context" --lr 3e-4 --warmup 20 --val-every 0 --save-every 0 --sample-tokens 32)
    until absent='^error: out of (device )?memory' \
        step train-start 60 "$bin/ironwarp" train --json --device cuda --overwrite \
        --out "$out/train" "${flags[@]}" --batch "$batch" --accumulate "$accumulate" --steps 0; do
        ((batch > 1)) && grep -Eqs '^error: out of (device )?memory' "$out/logs/train-start.log" || return
        batch=$((batch / 2)) accumulate=$((2 * accumulate))
    done
}

# pytorch_training NAME FLAGS...: trains the same steps in PyTorch, and writes $out/train/NAME.jsonl. An interrupted run
# leaves the steps so far, which are compared, too.
pytorch_training() {
    local name=$1 device=(--device cuda)
    shift
    [[ $gpu != Emulated* ]] || device=(--device cpu --no-compile)
    absent='^peer_training: (PyTorch cannot|no device|torch .* has no)' step "train-$name" 180 python3 \
        "$here/scripts/peer_training.py" "$out/train" --steps "$steps" --out "$out/train/$name.jsonl" \
        "${device[@]}" "$@"
    [[ -s $out/train/$name.jsonl ]]
}

compare_training() {
    local compare=(python3 "$here/scripts/compare-curves.py" "$out/train/metrics.jsonl" "$out/train/pytorch.jsonl"
        --out "$out/train")
    rm -f "$out"/train/pytorch*.jsonl
    if ! command -v python3 >/dev/null; then
        skip train-pytorch 'no python3 in PATH'
    elif ! pytorch_training pytorch; then
        skip train-compared 'PyTorch completed no step'
    else
        # Outside the bounds, the difference of two PyTorch runs with different rounding widens them.
        if ! "${compare[@]}" >"$out/tmp/compared" 2>&1 && pytorch_training pytorch-again --no-compile; then
            compare+=(--again "$out/train/pytorch-again.jsonl")
        fi
        step train-compared 20 "${compare[@]}"
    fi
}

# Times of the kernels in a few steps.
profile_training() {
    local nsys
    nsys=$(PATH=$PATH:/usr/local/cuda/bin command -v nsys)
    if [[ -z $nsys ]]; then
        skip train-kernels 'no nsys in PATH or /usr/local/cuda'
    else
        # --cuda-graph-trace=node shows the kernels of a CUDA graph individually.
        step train-kernels 60 "$nsys" profile --trace=cuda --cuda-graph-trace=node --stats=true \
            --output="$out/tmp/kernels" "$bin/ironwarp" train --json --device cuda --out "$out/tmp/kernels-run" \
            "${flags[@]}" --batch "$batch" --accumulate "$accumulate" --steps 5
    fi
}

train() {
    local model steps tokenizer batch context accumulate flags name
    if [[ -n $no_gpu ]]; then
        for name in train train-gpt2 train-pytorch train-compared; do
            skip $name 'no GPU'
        done
        return
    fi
    step train 40 "$bin/ironwarp" train --json --device cuda --overwrite --out "$out/train" --model tiny --batch 2 \
        --context 32 --steps 1 || return
    choose_training
    if start_training; then
        step train-gpt2 120 "$bin/ironwarp" train --device cuda --resume --out "$out/train" --steps "$steps"
        # The completed steps are compared even if the run did not finish.
        [[ ! -s $out/train/metrics.jsonl ]] || compare_training
        [[ $gpu == Emulated* ]] || profile_training
    fi
    # Each checkpoint has 1.5 GB, and none is needed any more.
    rm -rf "$out/train/checkpoints" "$out/train-text"
}

report() {
    local i p f s result
    {
        printf '# Ironwarp on %s\n\n' "${gpu:-a machine without a usable GPU}"
        [[ -z $no_gpu ]] || printf 'Steps that need a GPU were skipped: %s.\n\n' "$no_gpu"
        printf '%d s on %s, %s.\n\n' $SECONDS "$(uname -sr)" "$(nproc) processors"
        printf '| step | result | seconds | tests passed | failed | skipped | notes |\n|---|---|--:|--:|--:|--:|---|\n'
        for i in "${!names[@]}"; do
            p='' f='' s=''
            [[ -z ${counts[i]} ]] || read -r p f s <<<"${counts[i]}"
            result=${statuses[i]}
            [[ $result != failed ]] || result='**failed**'
            printf '| %s | %s | %d | %s | %s | %s | %s |\n' "${names[i]}" "$result" "${durations[i]}" "$p" "$f" "$s" \
                "${reasons[i]//|/\\|}"
        done
        printf '\nSkipped tests need the emulated GPU, or more memory than the GPU has; the logs name them.\n'
        if [[ -s $out/train/curves.md ]]; then
            printf '\n## Training compared with PyTorch\n\n'
            cat "$out/train/curves.md"
            printf '\n![Loss by step](train/curves.svg)\n'
        fi
        for i in device nvidia-smi bench bench-peers train-gpt2 train-pytorch train-kernels; do
            [[ -s $out/logs/$i.log ]] || continue
            printf '\n## %s\n\n```text\n' "$i"
            tail -n 200 "$out/logs/$i.log"
            printf '```\n'
        done
        printf '\n## Bundle\n\n```text\n'
        sed '/^$/q' "$here/MANIFEST"
        printf '```\n'
    } >"$out/report.md"
}

find_gpu
facts_of_gpu
tests contract 20 contract
tests no-driver 20 no_driver
tests ops 60 ops
tests gpt2 60 gpt2
if [[ -z $no_gpu ]]; then
    export IRONWARP_TEST_DEVICE=cuda
    # The emulated driver can serve as the GPU, too; see cuda-emulated below.
    tests cuda $([[ $gpu == Emulated* ]] && echo 240 || echo 120) cuda
    instructions
    # Training and benchmarks come first: only hardware can answer them, and training uses the remaining time.
    train
    bench
    sanitize
    unset IRONWARP_TEST_DEVICE
else
    # Without a GPU, the kernels are tested on the emulated GPU; schedules and mutants would take minutes. The rest takes
    # a minute of CPU time, so only a busy machine comes near the limit.
    tests cuda-emulated 240 cuda --skip any_schedule --skip mutants_are_killed
    instructions
    bench
    train
    sanitize
fi
tests driver-faults 90 driver_faults
report
rm -rf "$out/tmp"
printf '\n%s\n' "$out/report.md"
for status in "${statuses[@]}"; do
    [[ $status != failed ]] || exit 1
done
