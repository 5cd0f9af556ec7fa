// A slider for each dimension, with the images that it leads through.

const THUMBNAILS = 7;
const said = (value) => (Math.abs(value) < 0.005 ? "0.00" : value.toFixed(2)).replace("-", "−");

// Work that is done a little at a time, and given up when there is other work of its kind.
class Later {
  start(tasks) {
    const mine = (this.current = {}), queue = [...tasks];
    const work = () => {
      const end = performance.now() + 12;
      while (queue.length && performance.now() < end) queue.shift()();
      if (queue.length && this.current === mine) setTimeout(next, 0);
    };
    const next = () => { if (this.current === mine) work(); };
    setTimeout(next, 120); // once the pointer rests
  }

  stop() {
    this.current = null;
  }
}

class Sliders {
  constructor(model, move) {
    Object.assign(this, { model, move, later: new Later() });
    this.rows = model.record.dimensions.map((dimension) => this.row(dimension));
  }

  row(dimension) {
    const element = document.importNode(document.getElementById("row").content, true).firstElementChild;
    const [label, input, output, canvas] = ["label", "input", "output", "canvas"].map((tag) => element.querySelector(tag));
    const { index, low, high } = dimension, name = `z${index + 1}`, [height, width] = this.model.record.shape;
    label.firstElementChild.textContent = name;
    label.querySelector("small").textContent = dimension.said;
    Object.assign(input, { min: low, max: high, step: (high - low) / 200 });
    input.setAttribute("aria-label", `${name}, ${dimension.said}`);
    Object.assign(canvas, { height, width: THUMBNAILS * width });
    canvas.setAttribute("aria-label", `Images along ${name}`);
    input.addEventListener("input", () => {
      const z = this.z.slice();
      z[index] = input.valueAsNumber;
      this.move(z);
    });
    return { element, dimension, input, output, canvas };
  }

  draw(z, label) {
    this.z = z;
    for (const { dimension, input, output } of this.rows) {
      input.value = z[dimension.index];
      output.textContent = said(z[dimension.index]);
    }
    const { shape } = this.model.record;
    this.later.start(this.rows.flatMap(({ dimension: { index, low, high }, canvas }) =>
      Array.from({ length: THUMBNAILS }, (_, k) => () => {
        const moved = z.slice();
        moved[index] = low + ((high - low) * k) / (THUMBNAILS - 1);
        canvas.getContext("2d").putImageData(asPixels(this.model.decode(moved, label), shape), k * shape[1], 0);
      })));
  }
}
