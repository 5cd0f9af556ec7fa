// One run: its plane, the image decoded at the pointer, sliders, the way between two points.

const STEPS_OF_WAY = 9;
class Panel {
  constructor(page, record, model, { means, logvars, images }, hidden, root) {
    Object.assign(this, { page, record, model, means, logvars, images, hidden, root, ends: [null, null], label: 0 });
    this.z = Float32Array.from(record.stochastic ? new Float32Array(record.latent) : means.subarray(0, record.latent));
    this.plane = new Plane(this.part("plane"), page, model, means);
    this.gridWork = new Later();
    this.describe();
    this.makeControls();
    this.listen();
  }

  part(name) {
    return this.root.querySelector(`[data-part="${name}"]`);
  }

  describe() {
    const { record, page } = this, { test } = record, unit = record.unit;
    this.part("name").textContent = record.name;
    const parts = [record.model, `${record.arch} network`, `${record.latent} dimension${record.latent > 1 ? "s" : ""}`,
      record.likelihood_name.replaceAll("_", " ")];
    if (record.binarize !== "none") parts.push(`binarised (${record.binarize})`);
    if (test) {
      const kl = record.stochastic ? ` (reconstruction ${test.reconstruction.toFixed(1)} + KL ${test.kl.toFixed(1)})` : "";
      parts.push(`test loss ${test.loss.toFixed(1)} ${unit}${kl}`);
    }
    this.part("about").textContent = `${parts.join(", ")}.`;
    const error = record.half ? `at most ${record.grey_levels.toPrecision(2)} of 255 grey levels` : "rounding only";
    this.part("exact").textContent = `Largest pixel difference from Python over ${record.checked} latents: ${error}` +
      (record.half ? ", as the weights are kept in 16 bits." : ".");
    this.part("plane").setAttribute("aria-label", `Latent plane of ${record.name}: decodes under the pointer`);
  }

  makeControls() {
    const { record } = this, { dimensions } = record;
    this.part("prior").hidden = !record.stochastic;
    this.part("class-row").hidden = !record.condition;
    if (record.condition) this.part("class").append(...record.classes.map((name, i) => new Option(name, i)));
    this.part("axes").hidden = record.latent < 3;
    this.part("sliders").hidden = record.latent < 3;
    if (record.latent < 3) return;
    for (const [i, name] of ["across", "up"].entries()) {
      this.part(name).append(...dimensions.map((each, place) =>
        new Option(`z${each.index + 1} (${each.said})`, place, place === i, place === i)));
    }
    this.part("sliders-title").textContent = dimensions.length < record.latent
      ? `The ${dimensions.length} most informative of ${record.latent} dimensions` : "All dimensions, the most informative first";
    this.sliders = new Sliders(this.model, (z) => this.moveTo(z));
    this.part("rows").append(...this.sliders.rows.map((row) => row.element));
  }

  listen() {
    const canvas = this.part("plane");
    const at = (event) => {
      const box = canvas.getBoundingClientRect(), scale = this.plane.side / canvas.clientWidth;
      return [(event.clientX - box.left - canvas.clientLeft) * scale, (event.clientY - box.top - canvas.clientTop) * scale];
    };
    canvas.addEventListener("pointermove", (event) => this.point(this.plane.latentAt(at(event))));
    canvas.addEventListener("pointerdown", (event) => {
      this.point(this.plane.latentAt(at(event)));
      this.choose(at(event), 14);
    });
    canvas.addEventListener("keydown", (event) => this.key(event));
    this.part("prior").addEventListener("click", () => this.draw());
    this.part("grid").addEventListener("click", () => this.toggleGrid());
    this.part("class").addEventListener("change", (event) => {
      this.label = Number(event.target.value);
      this.drawWay();
      this.changed();
      this.onClass?.();
    });
    ["A", "B"].forEach((name, i) => this.part(name).addEventListener("click", () => this.setEnd(i)));
    this.part("way").addEventListener("input", (event) => this.along(event.target.valueAsNumber));
    for (const name of ["across", "up"]) this.part(name).addEventListener("change", () => this.changeAxes());
  }

  key(event) {
    const [[left, right], [bottom, top]] = this.plane.view, far = event.shiftKey ? 8 : 1;
    const unit = [((right - left) / 80) * far, ((top - bottom) / 80) * far];
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    const here = this.plane.pair(this.z);
    const actions = {
      Enter: () => this.choose(this.plane.at(here), 1e9), " ": () => this.choose(this.plane.at(here), 1e9),
      a: () => this.setEnd(0), b: () => this.setEnd(1), g: () => this.toggleGrid(),
      Escape: () => { this.chosen = null; this.changed(); },
    };
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in moves) this.point(here.map((value, i) => value + moves[event.key][i] * unit[i]));
    else if (event.key in actions) actions[event.key]();
    else return;
    event.preventDefault();
  }

  // To a point of the plane; the dimensions that it does not show stay.
  point(pair) {
    const z = this.z.slice();
    this.plane.axes.forEach((axis, i) => { z[axis] = pair[i]; });
    this.moveTo(z);
  }

  moveTo(z) {
    this.z = z;
    this.changed();
  }

  // The nearest dot: its posterior, its image where the page holds it.
  choose(place, within) {
    const dot = this.plane.nearest(place, within, this.hidden);
    if (dot < 0) return;
    const { latent } = this.record, own = [dot * latent, (dot + 1) * latent];
    const { names, classes } = this.page;
    if (this.record.condition && names.length) {
      const place = this.record.classes.indexOf(names[classes[dot]]);
      if (place >= 0) this.part("class").value = this.label = place;
    }
    this.chosen = { dot, mean: this.means.subarray(...own), logvar: this.logvars && this.logvars.subarray(...own) };
    this.moveTo(this.chosen.mean.slice());
  }

  // What was drawn or dropped.
  show({ mean, logvar }) {
    this.chosen = { dot: -1, mean, logvar };
    this.moveTo(mean.slice());
  }

  draw() {
    const normal = normals(Math.floor(Math.random() * 2 ** 32));
    this.chosen = null;
    this.moveTo(this.z.map(() => normal()));
  }

  setEnd(i) {
    this.ends[i] = this.z.slice();
    this.part("way").disabled = !this.ends.every(Boolean);
    this.part("way").value = i;
    this.changed();
    this.drawWay();
  }

  along(t) {
    const [a, b] = this.ends;
    this.chosen = null;
    this.moveTo(a.map((value, i) => (1 - t) * value + t * b[i]));
  }

  drawWay() {
    const [a, b] = this.ends, decode = (z) => this.model.decode(z, this.label);
    if (!a || !b) return;
    const ways = Array.from({ length: STEPS_OF_WAY }, (_, k) => k / (STEPS_OF_WAY - 1));
    paint(this.part("way-images"), ways.map((t) => decode(a.map((v, i) => (1 - t) * v + t * b[i]))), this.record.shape);
    this.part("way-images").hidden = false;
  }

  changeAxes() {
    const [across, up] = ["across", "up"].map((name) => this.record.dimensions[this.part(name).value]);
    this.plane.setAxes([across, up]);
    this.redots();
  }

  redots() {
    const outside = this.plane.drawDots(this.hidden);
    this.part("outside").textContent = outside ? `${outside} of the dots lie outside.` : "";
    this.changed();
  }

  toggleGrid() {
    this.grid = !this.grid;
    this.part("grid").setAttribute("aria-pressed", this.grid);
    this.changed();
  }

  // Once a frame, however often something moves.
  changed() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => { this.waiting = false; this.update(); });
  }

  update() {
    const start = performance.now();
    this.image = this.model.decode(this.z, this.label);
    this.milliseconds = performance.now() - start;
    paint(this.part("decoded"), [this.image], this.record.shape);
    this.drawGrid();
    this.plane.draw(this);
    this.sayWhere();
    this.sliders?.draw(this.z, this.label);
  }

  sayWhere() {
    const { axes } = this.plane, { chosen } = this, held = chosen && this.images[chosen.dot];
    const where = axes.map((axis) => `z${axis + 1} = ${said(this.z[axis])}`).join(", ");
    this.part("where").textContent = `${where}. Decoded in ${this.milliseconds.toFixed(1)} ms.`;
    const lines = [];
    if (chosen) {
      const name = this.page.names[this.page.classes[chosen.dot]];
      lines.push(chosen.dot < 0 ? "Chosen: the image of your own." : `Chosen: a test image${name ? ` of class ${name}` : ""}.`);
      if (chosen.logvar) {
        lines.push(`Its posterior: ${axes.map((axis) => `z${axis + 1} = ${said(chosen.mean[axis])} ± ` +
          said(Math.exp(0.5 * chosen.logvar[axis]))).join(", ")}.`);
      }
      if (chosen.dot >= 0 && !held) lines.push(`The page holds only ${this.page.images} of the images, not this one.`);
    }
    this.part("chosen").textContent = lines.join(" ");
    this.part("held").hidden = !held;
    this.part("rebuilt-held").hidden = !held;
    if (held) {
      paint(this.part("held-image"), [held], this.record.shape);
      paint(this.part("rebuilt"), [this.model.decode(chosen.mean, this.label)], this.record.shape);
    }
    clearTimeout(this.saying);
    this.saying = setTimeout(() => { this.part("spoken").textContent = `${where}. ${lines.join(" ")}`; }, 500);
  }

  // The images decoded all over the plane, behind the dots, a few at a time.
  drawGrid() {
    const { plane, record } = this, [height, width] = record.shape;
    if (!this.grid) {
      this.gridWork.stop();
      this.gridOf = plane.picture = null;
      return;
    }
    const others = this.z.filter((_, i) => !plane.axes.includes(i)).join(), now = `${plane.axes}|${this.label}|${others}`;
    if (now === this.gridOf) return;
    this.gridOf = now;
    const count = 16, picture = document.createElement("canvas"), z = this.z.slice();
    Object.assign(picture, { width: count * width, height: count * height });
    const context = picture.getContext("2d");
    plane.picture = picture;
    this.gridWork.start(Array.from({ length: count * count }, (_, k) => () => {
      const [i, j] = [Math.floor(k / count), k % count], place = [j, i].map((n) => ((n + 0.5) * plane.side) / count);
      plane.latentAt(place).forEach((value, axis) => { if (axis < plane.axes.length) z[plane.axes[axis]] = value; });
      context.putImageData(asPixels(this.model.decode(z, this.label), record.shape), j * width, i * height);
      if (j === count - 1) plane.draw(this);
    }));
  }
}
