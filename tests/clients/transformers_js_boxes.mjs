// transformers.js finds things: node transformers_js_boxes.mjs ENVIRONMENT FOLDER LABELS.json
// PICTURE..., and prints what the pipeline says of each picture, as JSON.
import { createRequire } from "node:module";
import { basename, dirname, join, resolve } from "node:path";
import { readFileSync } from "node:fs";

const [environment, folder, labels, ...pictures] = process.argv.slice(2);
const load = createRequire(join(resolve(environment), "package.json"));
const T = load("@huggingface/transformers");
T.env.allowRemoteModels = false;
T.env.localModelPath = dirname(resolve(folder));

const detector = await T.pipeline("zero-shot-object-detection", basename(folder), { dtype: "fp32" });
const asked = JSON.parse(readFileSync(labels, "utf8"));
const found = [];
for (const picture of pictures) found.push(await detector(picture, asked, { threshold: 0.02 }));
console.log(JSON.stringify(found));
