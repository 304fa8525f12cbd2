// transformers.js: node transformers_js.mjs ENVIRONMENT JOB.json, a job as run.py has it. Pictures
// go through onnx/preprocess.onnx where the folder has it: JavaScript's own resize differs.
import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";

const [environment, jobFile] = process.argv.slice(2);
const load = createRequire(join(resolve(environment), "package.json"));
const T = load("@huggingface/transformers");
const job = JSON.parse(readFileSync(jobFile, "utf8"));

T.env.remoteHost = process.env.HF_ENDPOINT;
T.env.allowLocalModels = false;
T.env.cacheDir = join(job.out, "js-cache");

function readNpy(path, type) {
  const bytes = readFileSync(path);
  const length = bytes.readUInt16LE(8);
  const header = bytes.toString("latin1", 10, 10 + length);
  const shape = header.match(/'shape': \(([^)]*)\)/)[1].split(",").filter((x) => x.trim());
  const data = bytes.subarray(10 + length);
  const values = data.buffer.slice(data.byteOffset, data.byteOffset + data.byteLength);
  const array = type === "int64" ? new BigInt64Array(values) : new Float32Array(values);
  return new T.Tensor(type, array, shape.map(Number));
}

function writeNpy(path, { data, dims }) {
  const text = `{'descr': '<f4', 'fortran_order': False, 'shape': (${dims.join(", ")}), }`;
  const header = Buffer.from(`${text.padEnd(128 - 10 - 1)}\n`, "latin1");
  const start = Buffer.from([0x93, 78, 85, 77, 80, 89, 1, 0, header.length, 0]);
  writeFileSync(path, Buffer.concat([start, header, Buffer.from(Float32Array.from(data).buffer)]));
}

async function prepare(repo, images, processor) {
  const file = await fetch(`${process.env.HF_ENDPOINT}/${repo}/resolve/main/onnx/preprocess.onnx`);
  if (!file.ok) return processor(images);
  const ort = load("onnxruntime-node"); // on which transformers.js runs itself
  const session = await ort.InferenceSession.create(new Uint8Array(await file.arrayBuffer()));
  const rows = [];
  for (const { data, height, width } of images) {
    const image = new ort.Tensor("uint8", Uint8Array.from(data), [height, width, 3]);
    const { pixel_values } = await session.run({ image });
    rows.push(new T.Tensor("float32", pixel_values.data, pixel_values.dims));
  }
  return { pixel_values: T.cat(rows, 0) };
}

// transformers.js cuts a long text with its marks on, and so loses the end mark.
function putEndBack({ data, dims }, tokenizer) {
  const end = tokenizer([""]).input_ids.data.at(-1); // the empty text is the marks alone
  for (let last = dims[1] - 1; last < data.length; last += dims[1]) {
    if (Number(data[last]) !== tokenizer.pad_token_id) data[last] = end;
  }
}

async function embed({ model, repo, options = {} }) {
  const path = (name) => join(job.inputs, `${model}.${name}.npy`);
  const names = readdirSync(join(job.inputs, "pictures")).sort();
  const captions = JSON.parse(readFileSync(join(job.inputs, "captions.json"), "utf8"));
  const settings = { dtype: "fp32" };
  const tokenizer = await T.AutoTokenizer.from_pretrained(repo);
  const processor = await T.AutoProcessor.from_pretrained(repo);
  const text = await T.CLIPTextModelWithProjection.from_pretrained(repo, settings);
  const vision = await T.CLIPVisionModelWithProjection.from_pretrained(repo, settings);
  const images = [];
  for (const name of names) images.push(await T.RawImage.read(join(job.inputs, "pictures", name)));
  const tokens = { input_ids: readNpy(path("input_ids"), "int64") };
  if (existsSync(path("attention_mask"))) {
    tokens.attention_mask = readNpy(path("attention_mask"), "int64");
  }
  const pixels = { pixel_values: readNpy(path("pixel_values"), "float32") };
  const texts = tokenizer(captions, { padding: "max_length", truncation: true });
  putEndBack(texts.input_ids, tokenizer);
  return {
    same_image: (await vision(pixels)).image_embeds,
    same_text: (await text(tokens)).text_embeds,
    image: (await vision(await prepare(repo, images, processor))).image_embeds,
    text: (await text(texts)).text_embeds,
  };
}

mkdirSync(job.out, { recursive: true });
for (const task of job.tasks) {
  const stem = join(job.out, `${task.label}.${task.model}`);
  try {
    for (const [which, tensor] of Object.entries(await embed(task))) {
      writeNpy(`${stem}.${which}.npy`, tensor);
    }
  } catch (error) {
    writeFileSync(`${stem}.error`, String(error.stack ?? error));
  }
}
