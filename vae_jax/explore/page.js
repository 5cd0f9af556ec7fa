// Reads what Python wrote into the page, and puts its parts together.

function blockOf(id) {
  const element = document.getElementById(id), bytes = bytesOf(element.textContent);
  element.remove(); // some megabytes of text
  return bytes;
}

function heldImages(page) {
  const bytes = blockOf("images"), size = page.shape.reduce((a, b) => a * b);
  return Array.from({ length: page.images }, (_, i) =>
    Float32Array.from(bytes.subarray(i * size, (i + 1) * size), (value) => value / 255));
}

function makePanel(page, record, place, images, hidden) {
  const model = modelOf(record, floatsOf(blockOf(`weights-${place}`), record.half));
  const codes = floatsOf(blockOf(`codes-${place}`), false), size = page.dots * record.latent;
  const root = document.importNode(document.getElementById("panel").content, true).firstElementChild;
  for (const [name, suffix] of [["help", "help"], ["title", "title"]]) root.querySelector(`[data-id="${name}"]`).id = `${suffix}-${place}`;
  root.setAttribute("aria-labelledby", `title-${place}`);
  root.querySelector('[data-part="plane"]').setAttribute("aria-describedby", `help-${place}`);
  document.getElementById("panels").append(root);
  const means = codes.subarray(0, size), logvars = record.stochastic ? codes.subarray(size) : null;
  return new Panel(page, record, model, { means, logvars, images }, hidden, root);
}

// Buttons that hide and show the dots of a class.
function makeLegend(page, hidden, redraw) {
  const legend = document.getElementById("legend");
  legend.hidden = page.names.length < 2;
  const buttons = page.names.map((name, place) => {
    const button = document.createElement("button"), canvas = document.createElement("canvas");
    Object.assign(button, { type: "button", className: "key" });
    Object.assign(canvas, { width: 28, height: 28 });
    drawMark(canvas.getContext("2d"), page, place, 14, 14, 10);
    canvas.setAttribute("aria-hidden", "true");
    button.append(canvas, name);
    button.addEventListener("click", () => {
      if (!hidden.delete(place)) hidden.add(place);
      show();
    });
    return button;
  });
  const show = () => {
    buttons.forEach((button, place) => button.setAttribute("aria-pressed", !hidden.has(place)));
    redraw();
  };
  for (const [id, change] of [["all", () => hidden.clear()], ["none", () => page.names.forEach((_, i) => hidden.add(i))]]) {
    document.getElementById(id).addEventListener("click", () => { change(); show(); });
  }
  document.getElementById("keys").append(...buttons);
  show();
}

function begin() {
  const page = JSON.parse(document.getElementById("record").textContent), hidden = new Set(), images = heldImages(page);
  const panels = page.runs.map((record, place) => makePanel(page, record, place, images, hidden));
  const number = (value) => value.toLocaleString("en");
  document.getElementById("title").textContent = `Latent space of ${page.runs.map((run) => run.name).join(" and ")}`;
  document.getElementById("held").textContent = `Each dot is the code of one of ${number(page.dots)} test images of ` +
    `${page.dataset} (of ${number(page.tests)}), which no run was trained on. This file holds these codes and ` +
    `${number(page.images)} of the images: whoever gets it has them. It sends nothing anywhere.`;
  document.body.classList.toggle("two", panels.length > 1);
  const resize = () => {
    for (const panel of panels) {
      panel.plane.resize(panel.part("plane").clientWidth || 560);
      panel.redots();
    }
  };
  makeLegend(page, hidden, () => panels.forEach((panel) => panel.redots()));
  resize();
  window.addEventListener("resize", resize);
  const own = new Own(page, panels, images, document.getElementById("own"));
  window.explorer = { page, panels, own };
}

begin();
