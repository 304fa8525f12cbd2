#!/usr/bin/env bash
# The whole of ptft in one script: pretrain, fine-tune, export, serve, ask. Two CPU cores are enough.
#
#   recipe -> run -> model folder -> service
#
# It is what `make demo` runs. Everything lies in a new folder, recipes/speedrun.sh FOLDER to name it.
set -euo pipefail

OUT=${1:-runs/speedrun-$(date +%Y%m%d-%H%M%S)}
PORT=${PORT:-3000}
read -ra TRAIN <<<"${TRAIN:-}" # overrides for both runs: TRAIN="optim.samples_seen=5120"
cd "$(dirname "$0")/.."
if [ -e "$OUT" ]; then
  echo "speedrun: $OUT is there already; name another folder: recipes/speedrun.sh FOLDER" >&2
  exit 2
fi
mkdir -p "$(dirname "$OUT")"
mkdir "$OUT" # a new one, or an error: nobody else's

say() { printf '\n== %s\n' "$*" >&2; }

say "1. Pretrain on shaded scenes; combinations of colour and shape are held out"
ptft train pretrain/scenes run.dir="$OUT/pretrained" "${TRAIN[@]}"

say "2. Fine-tune to line drawings, from those weights"
ptft train finetune/scenes-line init.from="$OUT/pretrained" run.dir="$OUT/tuned" "${TRAIN[@]}"

say "3. Export: open_clip files, ONNX held against the checkpoint, golden embeddings, a card"
ptft export "$OUT/tuned" "$OUT/model" --name scenes-line

say "4. Serve it, without torch"
PTFT_MODEL="$OUT/model" bentoml serve serving.service:Ptft --host 127.0.0.1 --port "$PORT" \
  >"$OUT/service.log" 2>&1 &
service=$!
trap 'kill $service 2>/dev/null || true' EXIT
python - "$PORT" <<'PY' || { tail -n 20 "$OUT/service.log" >&2; exit 1; }
import sys, time, urllib.request
for _ in range(600):
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{sys.argv[1]}/readyz").read()
        break
    except OSError:
        time.sleep(0.1)
else:
    sys.exit("the service did not become ready within a minute")
PY

say "5. Ask it which of four captions fits a line drawing that training never saw"
python - "$PORT" "$OUT" <<'PY'
import base64, io, json, sys, urllib.request
from pathlib import Path
from ptft.data import open_split
from ptft.recipe import ScenesData

port, out = sys.argv[1], Path(sys.argv[2])
scenes = open_split(ScenesData(style="line"), "test")
picture = io.BytesIO()
scenes[0].image.save(picture, "PNG")
(out / "question.png").write_bytes(picture.getvalue())
question = {
    "images": [base64.b64encode(picture.getvalue()).decode()],
    "labels": [scenes.captions(index)[0] for index in range(4)],
    "templates": ["{}"],
}
request = urllib.request.Request(
    f"http://127.0.0.1:{port}/v1/classify",
    json.dumps(question).encode(),
    {"Content-Type": "application/json"},
)
answer = json.load(urllib.request.urlopen(request))
print(f"picture: {out / 'question.png'}; it shows: {scenes.captions(0)[0]}")
for found in answer["results"][0]["classes"]:
    print(f"  {found['probability']:6.1%}  {found['label']}")

before, after = (json.loads((out / run / "metrics.json").read_text()) for run in ("pretrained", "tuned"))
print("\nrecall@1, image to text, on held-out combinations")
print(f"{'domain':<10}{'chance':>8}{'pretrained':>12}{'fine-tuned':>12}{'change':>9}")
for domain in ("shaded", "line"):
    was, now = (figures[domain]["i2t_recall@1"] for figures in (before, after))
    chance = before[domain]["i2t_chance@1"]
    print(f"{domain:<10}{chance:>8.1%}{was:>12.1%}{now:>12.1%}{now - was:>+9.1%}")
print(f"""
pretrained run   {out / "pretrained"}  (curves.png, metrics.json, final/)
fine-tuned run   {out / "tuned"}
model folder     {out / "model"}  ({answer["digest"]})

Serve it:  PTFT_MODEL={out / "model"} bentoml serve serving.service:Ptft""")
PY
