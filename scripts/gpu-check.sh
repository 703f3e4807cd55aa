#!/usr/bin/env bash
# Everything that has to be seen on a GPU, in one go: correctness first, then speed, then a table.
#
#   gpu-check.sh [--device cuda:0] [--bin PATH] [--tests DIR] [--shape llama-3.1-8b] [--out DIR]
#                [--only STEP,STEP…] [--quick]
#
# Needs no network, no cargo and no weights: the program, and the test programs that
# `cargo xtask cuda-build` puts beside it. Every step has a verdict of its own (pass, FAIL, skip)
# and a log; the script goes on after a failed step and ends with 1 if one failed. Results:
# OUT/gpu-check-DATE.json and .txt; a later run with --only and the same --out fills in steps.
# --device cpu runs the same steps on the processor with a tiny shape, which proves the script
# and nothing about a GPU.
set -uo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
device=cuda:0 bin="" tests="" shape="" out="" only="" quick=no
while [ $# -gt 0 ]; do
  case $1 in
    --device) device=$2; shift 2 ;;
    --bin) bin=$2; shift 2 ;;
    --tests) tests=$2; shift 2 ;;
    --shape) shape=$2; shift 2 ;;
    --out) out=$2; shift 2 ;;
    --only) only=",$2,"; shift 2 ;;
    --quick) quick=yes; shift ;;
    *) sed -n '2,14p' "$0" >&2; exit 2 ;;
  esac
done
[ -n "$bin" ] || bin=$here/autodidact
[ -x "$bin" ] || { echo "no program at $bin; give --bin" >&2; exit 2; }
[ -n "$tests" ] || tests=$here/tests
[ -n "$out" ] || out=$PWD/gpu-check
command -v python3 >/dev/null || { echo "python3 is needed to compare and to write results" >&2; exit 2; }
if [ "$device" = cpu ]; then on_gpu=no; : "${shape:=tiny}"; else on_gpu=yes; : "${shape:=llama-3.1-8b}"; fi
mkdir -p "$out/logs"
results=$out/results.jsonl
# cuBLAS, where a Python with torch brings it.
if [ $on_gpu = yes ]; then
  libs=$(python3 - <<'PY' 2>/dev/null
import glob, os, site, sys, sysconfig
roots = {sysconfig.get_paths()["purelib"], *site.getsitepackages()}
print(":".join(p for r in roots for p in glob.glob(os.path.join(r, "nvidia", "cu*", "lib")) + glob.glob(os.path.join(r, "nvidia", "cublas", "lib"))))
PY
)
  export LD_LIBRARY_PATH=${libs:+$libs:}${LD_LIBRARY_PATH:-}
fi
[ -d "$here/fixtures" ] && export AUTODIDACT_TEST_FIXTURES=$here/fixtures

# step NAME SECONDS COMMAND…: exit code 0 = pass, 77 = skip, anything else = FAIL. The last line
# of the log that begins with "note: " goes into the table.
step() {
  local name=$1 seconds=$2; shift 2
  if [ -n "$only" ] && [[ $only != *",$name,"* ]]; then return; fi
  local log=$out/logs/$name.log begin=$SECONDS code verdict
  printf '%-28s ' "$name"
  timeout --kill-after=10 "$seconds" "$@" >"$log" 2>&1
  code=$?
  case $code in 0) verdict=pass ;; 77) verdict=skip ;; 124 | 137) verdict=FAIL; echo "note: over its limit of $seconds s" >>"$log" ;; *) verdict=FAIL ;; esac
  local note
  note=$(grep -a '^note: ' "$log" | tail -1 | cut -c7-)
  [ -n "$note" ] || [ $verdict = pass ] || note=$(grep -av '^[[:space:]]*$' "$log" | tail -1 | cut -c1-160)
  printf '%s  %4d s  %s\n' "$verdict" $((SECONDS - begin)) "$note"
  NAME=$name VERDICT=$verdict TOOK=$((SECONDS - begin)) NOTE=$note CODE=$code LOG=$log DEVICE=$device python3 - >>"$results" <<'PY'
import json, os
e = os.environ
text = open(e["LOG"], errors="replace").read()
figures = [json.loads(l[9:]) for l in text.splitlines() if l.startswith("figures: ")]
print(json.dumps({"step": e["NAME"], "verdict": e["VERDICT"], "seconds": int(e["TOOK"]), "exit": int(e["CODE"]),
                  "note": e["NOTE"], "device": e["DEVICE"], "figures": figures[-1] if figures else None}))
PY
}

# ---- what runs where

machine() {
  uname -a; nproc
  [ $on_gpu = no ] || nvidia-smi || echo "nvidia-smi is not there"
  "$bin" doctor --json --shape llama-3.1-8b >"$out/doctor.json" || return 1
  cat "$out/doctor.json"
  python3 - "$out/doctor.json" $on_gpu <<'PY'
import json, sys
doctor = json.load(open(sys.argv[1]))
gpus = doctor["gpus"]
if sys.argv[2] == "yes" and not gpus:
    print("note:", doctor["no_gpu_because"]); sys.exit(1)
print("note:", "; ".join(f"{g['name']}, {g['free_bytes'] / 1e9:.1f} GB free, CUDA {g['driver']}" for g in gpus) or "no GPU, as told")
print("figures:", json.dumps(gpus))
PY
}

# test_program NAME ARGS…: a test binary carried here; "cpu" runs it in the emulator.
test_program() {
  local program=$tests/$1; shift
  [ -x "$program" ] || { echo "note: no $program"; return 77; }
  AUTODIDACT_TEST_DEVICE=$device "$program" "$@" 2>&1 | tee /dev/stderr | python3 -c '
import re, sys
text = sys.stdin.read()
ran = re.findall(r"test result: (\w+)\. (\d+) passed; (\d+) failed", text)
if not ran: print("note: no test ran to its end"); sys.exit(1)
print(f"note: {sum(int(r[1]) for r in ran)} passed, {sum(int(r[2]) for r in ran)} failed")
sys.exit(any(r[0] != "ok" for r in ran) or not sum(int(r[1]) for r in ran))' 2>/dev/null
}

# Greedy answers of the embedded model, token for token beside the processor's.
greedy() {
  local prompts=("What is the fox like?" "Write a letter to Sam about the goat." "Write a poem about the otter." "Compare the owl and the train.")
  local work=$out/greedy; mkdir -p "$work"
  local i=0
  for prompt in "${prompts[@]}"; do
    for where in cpu "$device"; do
      "$bin" generate -p "$prompt" --temperature 0 --max-tokens 96 --logprobs 2 --json --kv-type f32 \
        --device "$where" $([ "$where" = cpu ] || echo --deterministic) >"$work/$i-${where/:/-}.json" || return 1
    done
    i=$((i + 1))
  done
  python3 - "$work" "${device/:/-}" $i <<'PY'
import json, sys
folder, device, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
equal, ties, worst = 0, 0, 0.0
for i in range(count):
    a, b = (json.load(open(f"{folder}/{i}-{w}.json"))["completions"][0] for w in ("cpu", device))
    at = next((k for k, (x, y) in enumerate(zip(a["tokens"], b["tokens"])) if x != y), None)
    if at is None and len(a["tokens"]) == len(b["tokens"]):
        equal += 1
    upto = len(a["tokens"]) if at is None else at
    diffs = [abs(x["logprob"] - y["logprob"]) for x, y in list(zip(a["logprobs"], b["logprobs"]))[:upto]]
    worst = max([worst, *diffs])
    if at is not None:
        top = [p for _, p in a["logprobs"][at]["top"]]
        gap = top[0] - top[1]
        ties += gap < 0.05
        print(f"prompt {i}: token {at} is {b['tokens'][at]}, on the processor {a['tokens'][at]}; its two likeliest were {gap:.4f} apart")
print(f"note: {equal} of {count} equal, {ties} parted at a tie (below 0.05), log-probabilities differ by up to {worst:.4f}")
print("figures:", json.dumps({"equal": equal, "ties": ties, "of": count, "worst_logprob": worst}))
sys.exit(equal + ties < count)
PY
}

# Answers must not depend on the batch, nor on the replica, where bits are promised.
same_answers() {
  local rows=$out/rows.jsonl
  python3 - >"$rows" <<'PY'
import json
for i in range(24):
    print(json.dumps({"id": str(i), "prompt": f"Write {'a poem' if i % 2 else 'a letter'} about the {['fox', 'owl', 'goat', 'otter'][i % 4]}."}))
PY
  run() { "$bin" generate -i "$rows" -o "$1" --seed 3 --max-tokens 48 "${@:2}" || return 1; }
  rm -f "$out"/answers-*
  run "$out/answers-a.jsonl" --device "$device" --deterministic --max-batch-tokens 512 || return 1
  run "$out/answers-b.jsonl" --device "$device" --deterministic --max-batch-tokens 33 || return 1
  cmp "$out/answers-a.jsonl" "$out/answers-b.jsonl" || { echo "note: another step size gives other answers"; return 1; }
  if [ $on_gpu = no ]; then
    run "$out/answers-c.jsonl" --devices cpu,cpu || return 1
    cmp "$out/answers-a.jsonl" "$out/answers-c.jsonl" || { echo "note: two replicas give other answers"; return 1; }
  fi
  echo "note: 24 answers are the same, byte for byte"
}

sanitizer() {
  command -v compute-sanitizer >/dev/null || { echo "note: compute-sanitizer is not there"; return 77; }
  [ $on_gpu = yes ] || { echo "note: for a GPU only"; return 77; }
  [ -x "$tests/kernels-cuda" ] || { echo "note: no $tests/kernels-cuda"; return 77; }
  AUTODIDACT_TEST_DEVICE=$device compute-sanitizer --tool memcheck --error-exitcode 9 --target-processes all "$tests/kernels-cuda" --test-threads 1 || return 1
  grep -q 'ERROR SUMMARY: 0 errors' "$out/logs/sanitizer.log" && echo "note: memcheck found nothing"
}

# bench FILE TARGETS ARGS…: measurements as JSON with targets held against them: phase=share or
# phase:rows=share of the machine's own limit, phase>tokens a second.
bench() {
  local file=$out/$1.json targets=$2; shift 2
  "$bin" bench engine --json --device "$device" "$@" >"$file" || return 1
  python3 - "$file" "$targets" $on_gpu <<'PY'
import json, sys
result = json.load(open(sys.argv[1]))
targets = dict(t.split("=") for t in sys.argv[2].split() if "=" in t)
rates = dict(t.split(">") for t in sys.argv[2].split() if ">" in t)
notes, missed = [], 0
for m in result["measurements"]:
    target = targets.get(f"{m['phase']}:{m['rows']}", targets.get(m["phase"]))
    share = m["share_of_limit"]
    text = f"{m['phase']} {m['rows']}x{m['context']} {m['tok_per_s']:.0f}/s = {100 * share:.0f} %"
    if target and share < float(target):
        missed += 1
        text += f" (target {100 * float(target):.0f} %)"
    rate = rates.get(m["phase"])
    if rate and m["tok_per_s"] < float(rate):
        missed += 1
        text += f" (target {rate}/s)"
    notes.append(text)
print("figures:", json.dumps(result))
print("note:", ", ".join(notes), f"| memory {result['read_bytes_per_s'] / 1e9:.0f} GB/s, products {result['product_flops'] / 1e12:.2f} Tflop/s")
sys.exit(missed > 0 and sys.argv[3] == "yes")
PY
}

# The same decoding with steps given ahead and without, by the clock.
overlap() {
  local on=$out/overlap-on.json off=$out/overlap-off.json
  "$bin" bench engine --json --device "$device" --overlap on "$@" >"$on" || return 1
  "$bin" bench engine --json --device "$device" --overlap off "$@" >"$off" || return 1
  python3 - "$on" "$off" <<'PY'
import json, sys
by_clock = lambda m: m["tok_per_s"] * (1 - m["host_share"])
on, off = ([m for m in json.load(open(p))["measurements"] if m["phase"] == "decode"] for p in sys.argv[1:])
print("figures:", json.dumps({"on": on, "off": off}))
print("note:", ", ".join(f"{a['rows']} rows {by_clock(b):.0f} -> {by_clock(a):.0f}/s ({by_clock(a) / by_clock(b) - 1:+.1%})" for a, b in zip(on, off)))
PY
}

# Training beside an 8B (or the shape asked for): tokens per second, memory by the program's own count.
training() {
  "$bin" bench train --json --device "$device" --shape "$shape" --tokens "$1" --rank 16 --steps "$2" >"$out/train.json" || return 1
  python3 - "$out/train.json" $on_gpu <<'PY'
import json, sys
m = json.load(open(sys.argv[1]))
print("figures:", json.dumps(m))
all_bytes = m["weight_bytes"] + (m["device_peak_bytes"] or 0)
text = f"{m['tokens_per_s']:.0f} tokens/s, {100 * m['share_of_limit']:.0f} % of products"
if m["device_peak_bytes"]:
    text += f", weights {m['weight_bytes'] / 1e9:.2f} GB + {m['device_peak_bytes'] / 1e9:.2f} GB (arithmetic {m['expected_bytes'] / 1e9:.2f})"
    if all_bytes > 23e9: text += ": more than 24 GB allow"
print("note:", text)
sys.exit(all_bytes > 23e9 and sys.argv[2] == "yes")
PY
}

order() {
  local steps=none,early-stop
  [ $quick = yes ] || steps=none,sharing,logits,early-stop
  "$bin" bench synth --json --device "$device" --shape "$shape" --seeds "$1" --scale "$2" --steps $steps >"$out/order.json" || return 1
  python3 - "$out/order.json" $on_gpu <<'PY'
import json, sys
m = json.load(open(sys.argv[1]))["measurements"]
ratio = m[0]["seconds_per_accepted"] / m[-1]["seconds_per_accepted"]
print("figures:", json.dumps(m))
print("note:", ", ".join(f"{x['step']} {x['wall_seconds']:.1f} s" for x in m), f"| {ratio:.2f}x (target 2x)")
sys.exit(ratio < 2 and sys.argv[2] == "yes")
PY
}

peer() {
  local script=$here/bench-hf-batching.py
  [ -f "$script" ] || { echo "note: no $script"; return 77; }
  [ -f "$out/mix.json" ] || { echo "note: the step mix has to run before"; return 1; }
  python3 "$script" --device "$device" --shape "$shape" --instructions "$1" ${@:2} >"$out/peer.json" || return 1
  tail -1 "$out/peer.json" | python3 -c '
import json, os, sys
peer = json.load(sys.stdin)
if "skipped" in peer: print("note: skipped:", peer["skipped"]); sys.exit(77)
print("figures:", json.dumps(peer))
ours = next(m["tok_per_s"] for m in json.load(open(sys.argv[1]))["measurements"] if m["phase"] == "mix")
theirs, attention = peer["tok_per_s"], peer["attention"]
ratio = ours / theirs
print(f"note: transformers {theirs:.0f}/s ({attention}), ours {ours:.0f}/s: {ratio:.1f}x (target 3x)")
sys.exit(ratio < 3 and sys.argv[2] == "yes")' "$out/mix.json" $on_gpu
}

export -f machine test_program greedy same_answers sanitizer bench overlap training order peer
export here bin tests out device shape on_gpu quick

# ---- correctness, then speed

if [ $on_gpu = yes ]; then rows=1,64,256 context=1024 new=64 count=200 seeds=200 scale=1 tokens=2048; else rows=1,8 context=64 new=8 count=4 seeds=2 scale=0.05 tokens=128; fi
[ $quick = no ] || { count=$((count / 4 + 1)); seeds=$((seeds / 4 + 1)); }
b="bash -c"
step machine 60 $b machine
step kernels 300 $b 'test_program kernels-cuda'
step model 300 $b 'test_program model-cuda'
step engine 300 $b 'test_program engine-cuda'
step train-tests 300 $b 'test_program train-cuda'
step greedy 120 $b greedy
step same-answers 120 $b same_answers
step sanitizer 240 $b sanitizer
step decode-prefill 400 $b "bench decode-prefill 'decode=0.7 prefill=0.55' --shape $shape --rows $rows --prompt-tokens $context --new-tokens $new --repeat 3"
step decode-deterministic 300 $b "bench decode-deterministic '' --shape $shape --rows $rows --prompt-tokens $context --new-tokens $new --repeat 1 --deterministic"
step decode-q4_k 300 $b "bench decode-q4_k '' --shape $shape --quant q4_k --rows ${rows%%,*},8,64 --prompt-tokens $context --new-tokens $new --repeat 1"
step decode-q8_0 300 $b "bench decode-q8_0 '' --shape $shape --quant q8_0 --rows ${rows%%,*},8,64 --prompt-tokens $context --new-tokens $new --repeat 1"
step decode-f8-cache 300 $b "bench decode-f8-cache '' --shape $shape --rows $rows --prompt-tokens $context --new-tokens $new --repeat 1 $([ $on_gpu = no ] || echo --kv-dtype f8)"
step overlap 300 $b "overlap --shape $shape --rows $rows --prompt-tokens $context --new-tokens $new --repeat 1"
step mix 300 $b "bench mix 'mix>12000' --shape $shape --mix ultraif --instructions $count"
step train 400 $b "training $tokens 5"
step order 590 $b "order $seeds $scale"
if [ $on_gpu = yes ]; then step peer 590 $b "peer $count"; else step peer 300 $b "peer 2 --samples 2 --prompt 24 --written 12"; fi

# ---- the table; the newest result of each step counts

date=$(date -u +%Y-%m-%d)
python3 - "$results" "$out/gpu-check-$date" "$device" "$shape" <<'PY'
import json, sys
path, stem, device, shape = sys.argv[1:]
newest = {}
for line in open(path):
    one = json.loads(line)
    newest[one["step"]] = one
rows = list(newest.values())
lines = [f"gpu-check {stem.rsplit('-', 3)[-3]}-{stem.rsplit('-', 2)[-2]}-{stem.rsplit('-', 1)[-1]}  device {device}  shape {shape}"]
lines += [f"{r['step']:<22} {r['verdict']:<5} {r['seconds']:>4} s  {r['note']}" for r in rows]
failed = [r["step"] for r in rows if r["verdict"] == "FAIL"]
lines.append(f"{len(rows)} steps, {len(failed)} failed" + (": " + ", ".join(failed) if failed else ""))
if device == "cpu":
    lines.append("on the processor: this says nothing about a GPU")
text = "\n".join(lines)
open(stem + ".txt", "w").write(text + "\n")
json.dump({"device": device, "shape": shape, "steps": rows}, open(stem + ".json", "w"), indent=1)
print("\n" + text)
sys.exit(bool(failed))
PY
