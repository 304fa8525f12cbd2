// What Immich's server sends to its machine-learning container, by the same means: Node's fetch,
// FormData and Blob. node http_immich.mjs URL MODEL JSON-OF-TEXTS PICTURE...
import { readFile } from 'node:fs/promises';

const [url, modelName, texts, ...pictures] = process.argv.slice(2);

async function predict(entries, key, value) {
  const form = new FormData();
  form.append('entries', JSON.stringify(entries));
  form.append(key, value);
  const answer = await fetch(new URL('/predict', url), { method: 'POST', body: form });
  if (!answer.ok) {
    throw new Error(`${answer.status}: ${await answer.text()}`);
  }
  return answer.json();
}

const ping = await fetch(new URL('/ping', url));
if (!ping.ok || (await ping.text()) !== 'pong') {
  throw new Error('no pong');
}
const found = { texts: [], pictures: [] };
for (const text of JSON.parse(texts)) {
  const entries = { clip: { textual: { modelName, options: { language: 'en' } } } };
  found.texts.push(JSON.parse((await predict(entries, 'text', text)).clip));
}
for (const path of pictures) {
  const entries = { clip: { visual: { modelName } } };
  const answer = await predict(entries, 'image', new Blob([new Uint8Array(await readFile(path))]));
  if (!(answer.imageHeight > 0 && answer.imageWidth > 0)) {
    throw new Error('no size');
  }
  found.pictures.push(JSON.parse(answer.clip));
}
process.stdout.write(JSON.stringify(found));
