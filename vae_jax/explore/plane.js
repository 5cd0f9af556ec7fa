// Two dimensions of a latent space on a canvas: dots, circles of the prior, an ellipse, the pointer.

const MARKS = {
  o: (c, x, y, r) => c.arc(x, y, r, 0, 7),
  "^": (c, x, y, r) => polygon(c, x, y, r * 1.2, 3, -Math.PI / 2),
  s: (c, x, y, r) => c.rect(x - r, y - r, 2 * r, 2 * r),
  X: (c, x, y, r) => polygon(c, x, y, r * 1.2, 3, Math.PI / 2),
  D: (c, x, y, r) => polygon(c, x, y, r * 1.2, 4, 0),
  v: (c, x, y, r) => polygon(c, x, y, r * 1.2, 5, -Math.PI / 2),
  P: (c, x, y, r) => polygon(c, x, y, r * 1.2, 6, 0),
  "*": (c, x, y, r) => polygon(c, x, y, r * 1.2, 8, 0),
};

function polygon(context, x, y, radius, corners, turn) {
  for (let i = 0; i < corners; i++) {
    const angle = turn + (2 * Math.PI * i) / corners;
    context[i ? "lineTo" : "moveTo"](x + radius * Math.cos(angle), y + radius * Math.sin(angle));
  }
  context.closePath();
}

// The colour and the mark of a class, by its place among the classes.
function lookOf(page, place) {
  const { colours, markers } = page;
  return [colours[place % colours.length], MARKS[markers[Math.floor(place / colours.length) % markers.length]]];
}

function drawMark(context, page, place, x, y, radius) {
  const [colour, mark] = lookOf(page, place);
  context.fillStyle = colour;
  context.beginPath();
  mark(context, x, y, radius);
  context.fill();
}

class Plane {
  constructor(canvas, page, model, means) {
    Object.assign(this, { canvas, page, model, means, side: 560, ratio: 1, picture: null });
    this.dots = document.createElement("canvas");
    this.setAxes(model.record.dimensions.slice(0, 2));
  }

  // The dimensions across and up; a second one there may be none.
  setAxes(dimensions) {
    this.axes = dimensions.map((dimension) => dimension.index);
    const halves = dimensions.map(({ low, high }) => 0.54 * Math.max(high - low, 1e-3));
    // With one scale for both where there is a prior, so that its circles are round.
    const half = this.model.record.stochastic ? halves.map(() => Math.max(...halves)) : halves;
    this.view = dimensions.map(({ low, high }, i) => [(low + high) / 2 - half[i], (low + high) / 2 + half[i]]);
    if (dimensions.length < 2) this.view.push([-1, 1]);
  }

  resize(side) {
    this.ratio = window.devicePixelRatio || 1;
    this.side = side;
    for (const canvas of [this.canvas, this.dots]) canvas.width = canvas.height = Math.round(side * this.ratio);
  }

  at([x, y]) {
    const [[left, right], [bottom, top]] = this.view;
    return [((x - left) / (right - left)) * this.side, ((top - y) / (top - bottom)) * this.side];
  }

  // The values of the dimensions shown at a place of the canvas.
  latentAt([x, y]) {
    const [[left, right], [bottom, top]] = this.view;
    return [left + (x / this.side) * (right - left), top - (y / this.side) * (top - bottom)];
  }

  pair(z) {
    return [z[this.axes[0]], this.axes.length > 1 ? z[this.axes[1]] : 0];
  }

  code(dot) {
    const { latent } = this.model.record;
    return this.means.subarray(dot * latent, (dot + 1) * latent);
  }

  placeOf(dot) {
    const pair = this.pair(this.code(dot));
    if (this.axes.length < 2) pair[1] = ((dot * 0.618034) % 1) * 1.2 - 0.6; // of one dimension, spread by its number
    return this.at(pair);
  }

  // The nearest dot of a class that is shown, within so many pixels; -1 is none.
  nearest([x, y], within, hidden) {
    let best = -1, least = within * within;
    for (let dot = 0; dot < this.page.dots; dot++) {
      if (hidden.has(this.page.classes[dot])) continue;
      const [px, py] = this.placeOf(dot), distance = (px - x) ** 2 + (py - y) ** 2;
      if (distance < least) [best, least] = [dot, distance];
    }
    return best;
  }

  begin(canvas) {
    const context = canvas.getContext("2d");
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    context.clearRect(0, 0, this.side, this.side);
    return context;
  }

  drawDots(hidden) {
    const context = this.begin(this.dots), radius = Math.max(1.6, Math.min(4, 110 / Math.sqrt(this.page.dots)));
    context.globalAlpha = this.picture ? 0.9 : 0.7;
    let outside = 0;
    for (let dot = 0; dot < this.page.dots; dot++) {
      const place = this.page.classes[dot] ?? 0, [x, y] = this.placeOf(dot);
      if (x < 0 || y < 0 || x > this.side || y > this.side) outside++;
      if (!hidden.has(this.page.classes[dot])) drawMark(context, this.page, place, x, y, radius);
    }
    return outside;
  }

  draw({ z, chosen, ends }) {
    const context = this.begin(this.canvas);
    if (this.picture) {
      context.imageSmoothingEnabled = false;
      context.drawImage(this.picture, 0, 0, this.side, this.side);
    }
    context.drawImage(this.dots, 0, 0, this.side, this.side);
    if (this.model.record.stochastic && this.axes.length > 1) this.drawPrior(context);
    if (ends.every(Boolean)) this.line(context, ends.map((end) => this.at(this.pair(end))));
    ends.forEach((end, i) => { if (end) this.letter(context, "AB"[i], this.at(this.pair(end))); });
    if (chosen) this.drawPosterior(context, chosen);
    this.drawPointer(context, this.at(this.pair(z)));
  }

  drawPrior(context) {
    const [x, y] = this.at([0, 0]), unit = this.at([1, 0])[0] - x;
    for (const radius of [1, 2, 3]) {
      context.beginPath();
      context.arc(x, y, radius * unit, 0, 7);
      twice(context, () => context.stroke(), "#444", 1, [5, 4]);
      const angle = -Math.PI / 4, [tx, ty] = [x + radius * unit * Math.cos(angle), y + radius * unit * Math.sin(angle)];
      context.font = "12px system-ui, sans-serif";
      words(context, `${radius}σ`, tx + 3, ty - 3);
    }
  }

  // One and two standard deviations of the posterior of the chosen image.
  drawPosterior(context, { mean, logvar, dot }) {
    const own = dot >= 0 && this.axes.length < 2;
    const [x, y] = own ? this.placeOf(dot) : this.at(this.pair(mean));
    context.beginPath();
    context.arc(x, y, 6, 0, 7);
    twice(context, () => context.stroke(), "#000", 2);
    if (!logvar) return;
    const units = this.view.map(([low, high]) => this.side / (high - low));
    for (const times of [1, 2]) {
      const radii = this.axes.map((axis, i) => times * Math.exp(0.5 * logvar[axis]) * units[i]);
      context.beginPath();
      context.ellipse(x, y, radii[0], radii[1] ?? 10, 0, 0, 7);
      twice(context, () => context.stroke(), "#000", times === 1 ? 2 : 1);
    }
  }

  drawPointer(context, [x, y]) {
    context.beginPath();
    for (const [a, b] of [[-14, -5], [5, 14]]) {
      context.moveTo(x + a, y);
      context.lineTo(x + b, y);
      context.moveTo(x, y + a);
      context.lineTo(x, y + b);
    }
    twice(context, () => context.stroke(), "#c2002f", 2);
  }

  line(context, [from, to]) {
    context.beginPath();
    context.moveTo(...from);
    context.lineTo(...to);
    twice(context, () => context.stroke(), "#000", 2, [2, 4]);
  }

  letter(context, text, [x, y]) {
    context.font = "bold 16px system-ui, sans-serif";
    words(context, text, x - 5, y + 6);
  }
}

// On white, so that it is seen on any dots.
function twice(context, stroke, colour, width, dashes = []) {
  for (const [style, more, pattern] of [["rgba(255, 255, 255, 0.8)", 2, []], [colour, 0, dashes]]) {
    Object.assign(context, { strokeStyle: style, lineWidth: width + more });
    context.setLineDash(pattern);
    stroke();
  }
  context.setLineDash([]);
}

function words(context, text, x, y) {
  Object.assign(context, { strokeStyle: "rgba(255, 255, 255, 0.9)", lineWidth: 4, lineJoin: "round", fillStyle: "#222" });
  context.strokeText(text, x, y);
  context.fillText(text, x, y);
}
