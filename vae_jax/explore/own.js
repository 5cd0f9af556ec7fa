// An image of the reader's own: drawn, dropped, or a test image; and what each run says of it.

const PEN = 0.03; // how far an arrow key moves the pen, in units of the pad

class Own {
  constructor(page, panels, images, root) {
    Object.assign(this, { page, panels, images, root, strokes: [], image: null, pen: [0.5, 0.5], down: false });
    const drawable = Boolean(page.drawing);
    for (const part of this.root.querySelectorAll("[data-drawn]")) part.hidden = !drawable;
    this.part("no-image").textContent = drawable ? "Draw something, or choose a picture." : "Choose a picture.";
    this.results = panels.map((panel) => this.makeResult(panel));
    this.part("results").append(...this.results.map((result) => result.root));
    this.part("chosen").hidden = !images.length;
    if (drawable) this.listenToPad();
    for (const panel of panels) panel.onClass = () => { if (this.image) this.take(this.image, true); };
    this.part("clear").addEventListener("click", () => this.clear());
    this.part("file").addEventListener("change", (event) => this.open(event.target.files[0]));
    this.part("chosen").addEventListener("click", () => this.useChosen());
    // Anywhere: else the browser would leave the page for the picture.
    document.addEventListener("dragover", (event) => event.preventDefault());
    document.addEventListener("drop", (event) => { event.preventDefault(); this.open(event.dataTransfer.files[0]); });
    this.drawPad();
  }

  part(name) {
    return this.root.querySelector(`[data-part="${name}"]`);
  }

  makeResult(panel) {
    const root = document.importNode(document.getElementById("result").content, true).firstElementChild;
    root.querySelector("h3").textContent = panel.record.name;
    root.hidden = true;
    return { panel, root, part: (name) => root.querySelector(`[data-part="${name}"]`) };
  }

  listenToPad() {
    const pad = this.part("pad");
    const at = (event) => {
      const box = pad.getBoundingClientRect();
      return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    };
    pad.addEventListener("pointerdown", (event) => {
      pad.setPointerCapture(event.pointerId);
      this.strokes.push([at(event)]);
      this.drawing = true;
      this.drawn();
    });
    pad.addEventListener("pointermove", (event) => {
      if (!this.drawing) return;
      this.strokes.at(-1).push(...(event.getCoalescedEvents?.() ?? [event]).map(at));
      this.drawn();
    });
    for (const name of ["pointerup", "pointercancel"]) {
      pad.addEventListener(name, () => { if (this.drawing) { this.drawing = false; this.finish(); } });
    }
    pad.addEventListener("keydown", (event) => this.key(event));
    for (const name of ["focus", "blur"]) pad.addEventListener(name, () => this.drawPad());
  }

  key(event) {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in moves) {
      this.pen = this.pen.map((value, i) => Math.min(Math.max(value + PEN * moves[event.key][i], 0), 1));
      if (this.down) { this.strokes.at(-1).push(this.pen); this.drawn(); }
    } else if (event.key === " ") {
      this.down = !this.down;
      if (this.down) { this.strokes.push([this.pen]); this.drawn(); } else this.finish();
    } else return;
    event.preventDefault();
    this.drawPad();
  }

  drawPad() {
    const pad = this.part("pad"), context = pad.getContext("2d"), { width, height } = pad, { drawing } = this.page;
    if (!drawing) return;
    const [paper, ink] = drawing.paper ? ["#fff", "#000"] : ["#000", "#fff"];
    Object.assign(context, { fillStyle: paper, strokeStyle: ink, lineWidth: width / 14, lineCap: "round", lineJoin: "round" });
    context.fillRect(0, 0, width, height);
    for (const line of this.strokes) {
      context.beginPath();
      line.forEach(([x, y], i) => context[i ? "lineTo" : "moveTo"](x * width, y * height));
      if (line.length === 1) context.lineTo(line[0][0] * width, line[0][1] * height + 0.1);
      context.stroke();
    }
    if (!pad.matches(":focus-visible")) return; // of the keyboard alone
    context.beginPath();
    context.arc(this.pen[0] * width, this.pen[1] * height, width / 24, 0, 7);
    Object.assign(context, { strokeStyle: this.down ? "#ff7f0e" : "#66ccee", lineWidth: 3 });
    context.stroke();
  }

  clear() {
    Object.assign(this, { strokes: [], image: null, down: false });
    for (const { root } of this.results) root.hidden = true;
    this.part("no-image").hidden = false;
    this.say("");
    this.drawPad();
  }

  drawn() {
    this.drawPad();
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => { this.waiting = false; if (this.strokes.length) this.take(this.fromPad(), false); });
  }

  fromPad() {
    return imageOfDrawing(this.strokes, this.page.drawing, this.page.shape);
  }

  finish() {
    this.take(this.fromPad(), true);
  }

  async open(file) {
    if (!file) return;
    try {
      const image = await imageOfFile(file, this.page.shape, this.page.background, this.page.crop);
      this.strokes = [];
      this.drawPad();
      this.take(image, true);
      this.say(`${file.name}, scaled by the browser to ${this.page.shape[1]} x ${this.page.shape[0]} pixels. It stays here.`);
    } catch {
      this.say(`${file.name} is no picture that this browser can read. Give a PNG or JPEG file.`);
    }
  }

  useChosen() {
    const image = this.panels.map((panel) => panel.chosen && this.images[panel.chosen.dot]).find(Boolean);
    if (!image) return this.say("Click a dot first whose image the page holds.");
    this.strokes = [];
    this.drawPad();
    this.take(image, true);
    this.say("The test image that is chosen.");
  }

  say(text) {
    this.part("said").textContent = text;
  }

  // Posterior and reconstruction at once, and what takes longer when the drawing rests.
  take(image, whole) {
    this.image = image;
    this.part("no-image").hidden = true;
    for (const result of this.results) {
      const { panel, root, part } = result, { model, record } = panel;
      const posterior = model.encode(image, panel.label), rebuilt = model.decode(posterior.mean, panel.label);
      root.hidden = false;
      paint(part("seen"), [model.seen(image)], record.shape);
      paint(part("rebuilt"), [rebuilt], record.shape);
      panel.show(posterior);
      if (whole) this.judge(result, image, posterior, rebuilt);
    }
  }

  judge({ panel, part }, image, posterior, rebuilt) {
    const { model, record } = panel, { reconstruction, kl } = model.losses(image, posterior, panel.label), { test } = record;
    const rows = [["reconstruction", reconstruction, test?.reconstruction]];
    if (record.stochastic) rows.push(["KL", kl, test?.kl], ["loss", reconstruction + kl, test?.loss]);
    part("terms").replaceChildren(...rows.map(([name, own, mean]) => {
      const row = document.createElement("tr"), head = document.createElement("th");
      Object.assign(head, { textContent: name, scope: "row" });
      row.append(head, ...[own, mean].map((value) => {
        const cell = document.createElement("td");
        cell.textContent = value === undefined ? "" : value.toFixed(1).replace("-", "−");
        return cell;
      }));
      return row;
    }));
    part("unit").textContent = record.unit;
    part("as").textContent = record.condition ? `As class ${record.classes[panel.label]}: choose another beside the plane.` : "";
    part("rank").textContent = rankInWords(record.score, model.score(image, rebuilt));
    part("limits").textContent = `It says how well this model rebuilds an image, not what the image shows: a drawn letter ` +
      `may be rebuilt as well as a digit, and is no outlier then.${record.grey_bernoulli
        ? " Of grey pixels, the Bernoulli loss is no log-likelihood." : ""}${record.noisy
        ? " The run was trained with noise on its images; here is none." : ""}`;
    const near = nearestImages(panel, posterior.mean, Math.min(5, this.images.length));
    part("nearest-row").hidden = !near.length;
    if (near.length) paint(part("nearest"), near.map((i) => this.images[i]), record.shape);
    part("nearest-said").textContent = near.map((i) => this.page.names[this.page.classes[i]]).filter(Boolean).join(", ");
  }
}

function nearestImages({ plane, images }, mean, number) {
  const distance = (i) => plane.code(i).reduce((sum, value, d) => sum + (value - mean[d]) ** 2, 0);
  return images.map((_, i) => [distance(i), i]).sort((a, b) => a[0] - b[0]).slice(0, number).map(([, i]) => i);
}

// `validation` holds scores from the lowest to the highest, at equal steps of rank.
function rankInWords({ name, threshold, rate, number, validation }, score) {
  const below = validation.filter((value) => value < score).length / validation.length;
  const of = `${number.toLocaleString("en")} validation images`;
  const rank = below === 1 ? `above all ${of}` : below === 0 ? `below all ${of}` : `above ${(100 * below).toFixed(1)}% of ${of}`;
  const alarm = threshold === null ? "" : score > threshold
    ? ` An anomaly: it exceeds ${threshold.toPrecision(3)}, as at most ${(100 * rate).toPrecision(2)}% of such images do.`
    : ` No anomaly: ${threshold.toPrecision(3)} would be one, which at most ${(100 * rate).toPrecision(2)}% of such images exceed.`;
  return `Score (${name.replaceAll("_", " ")}): ${score.toPrecision(3)}, ${rank}.${alarm}`;
}
