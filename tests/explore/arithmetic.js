// Runs each case of a JSON file by the page's own arithmetic, and prints what came out as JSON.
// Arguments: the case file, then the scripts.
const fs = require("fs");
const [cases, ...scripts] = process.argv.slice(2);
const source = scripts.map((name) => fs.readFileSync(name, "utf8")).join("\n");
const { modelOf, floatsOf, bytesOf } = new Function(`${source}\nreturn { modelOf, floatsOf, bytesOf };`)();

const results = JSON.parse(fs.readFileSync(cases, "utf8")).map(({ record, weights, images, latents, labels }) => {
  const model = modelOf(record, floatsOf(bytesOf(weights), record.half));
  const start = performance.now();
  const decoded = latents.map((z, i) => Array.from(model.decode(Float32Array.from(z), labels[i])));
  const milliseconds = (performance.now() - start) / latents.length;
  const encoded = images.map((image, i) => {
    const x = Float32Array.from(image, (value) => value / 255), posterior = model.encode(x, labels[i]);
    const point = { mean: posterior.mean, logvar: posterior.logvar && posterior.logvar.map(() => -30) };
    return {
      mean: Array.from(posterior.mean),
      logvar: posterior.logvar && Array.from(posterior.logvar),
      kl: model.losses(x, posterior, labels[i]).kl,
      reconstruction: model.losses(x, point, labels[i]).reconstruction, // of the mean alone
      score: model.score(x, model.decode(posterior.mean, labels[i])),
    };
  });
  return { decoded, encoded, milliseconds };
});
process.stdout.write(JSON.stringify(results));
