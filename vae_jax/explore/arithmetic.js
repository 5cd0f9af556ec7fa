// What a trained model computes, in plain arithmetic: no page is needed for it.
// Maps are flat arrays [height, width, channels]; images hold values in [0, 1].

function bytesOf(base64) {
  const text = atob(base64.trim()), bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

// Numbers of 16 bits (half) or 32 bits, little-endian, as Python wrote them.
function floatsOf(bytes, half) {
  if (!half) return new Float32Array(bytes.buffer);
  const halves = new Uint16Array(bytes.buffer), floats = new Float32Array(halves.length);
  for (let i = 0; i < halves.length; i++) {
    const h = halves[i], exponent = (h >> 10) & 31, fraction = h & 1023;
    const size = exponent === 0 ? fraction * 2 ** -24 : (1024 + fraction) * 2 ** (exponent - 25);
    floats[i] = h & 0x8000 ? -size : size;
  }
  return floats;
}

// y[at...] += x[from...] times the matrix [inputs, outputs] that begins at w: four rows at a time, which is twice as fast.
function addProduct(y, at, outputs, x, from, inputs, weights, w) {
  if (outputs < 4) {
    for (let o = 0; o < outputs; o++) {
      let sum = y[at + o];
      for (let i = 0, p = w + o; i < inputs; i++, p += outputs) sum += x[from + i] * weights[p];
      y[at + o] = sum;
    }
    return;
  }
  let i = 0, p = w;
  for (; i + 3 < inputs; i += 4, p += 4 * outputs) {
    const a = x[from + i], b = x[from + i + 1], c = x[from + i + 2], d = x[from + i + 3];
    if (a === 0 && b === 0 && c === 0 && d === 0) continue;
    const q = p + outputs, r = q + outputs, s = r + outputs;
    for (let o = 0; o < outputs; o++) {
      y[at + o] += a * weights[p + o] + b * weights[q + o] + c * weights[r + o] + d * weights[s + o];
    }
  }
  for (; i < inputs; i++, p += outputs) {
    const a = x[from + i];
    for (let o = 0; o < outputs; o++) y[at + o] += a * weights[p + o];
  }
}

function biased(places, outputs, weights, bias) {
  const y = new Float32Array(places * outputs), own = weights.subarray(bias, bias + outputs);
  for (let place = 0; place < places; place++) y.set(own, place * outputs);
  return y;
}

const ACTIVATIONS = {
  gelu: (x) => x / (1 + Math.exp(-1.5957691216057308 * (x + 0.044715 * x * x * x))), // the tanh form, as flax has it
  relu: (x) => (x > 0 ? x : 0),
  silu: (x) => x / (1 + Math.exp(-x)),
  tanh: Math.tanh,
  sigmoid: (x) => 1 / (1 + Math.exp(-x)),
  linear: (x) => x,
};

const STEPS = {
  activate: (x, _, kind) => x.map(ACTIVATIONS[kind]),
  dense(x, weights, inputs, outputs, kernel, bias) {
    const y = biased(1, outputs, weights, bias);
    addProduct(y, 0, outputs, x, 0, inputs, weights, kernel);
    return y;
  },
  // Padded as XLA's SAME.
  conv(x, weights, height, width, inputs, outputs, side, stride, kernel, bias) {
    const rows = Math.ceil(height / stride), columns = Math.ceil(width / stride);
    const top = Math.max((rows - 1) * stride + side - height, 0) >> 1;
    const left = Math.max((columns - 1) * stride + side - width, 0) >> 1;
    const y = biased(rows * columns, outputs, weights, bias);
    for (let i = 0; i < rows; i++) {
      for (let j = 0; j < columns; j++) {
        for (let a = 0; a < side; a++) {
          const row = i * stride + a - top;
          if (row < 0 || row >= height) continue;
          for (let b = 0; b < side; b++) {
            const column = j * stride + b - left;
            if (column < 0 || column >= width) continue;
            const from = (row * width + column) * inputs, w = kernel + (a * side + b) * inputs * outputs;
            addProduct(y, (i * columns + j) * outputs, outputs, x, from, inputs, weights, w);
          }
        }
      }
    }
    return y;
  },
  // 3x3 and of stride 2: each place is spread over the nine that it reaches.
  transposed(x, weights, height, width, inputs, outputs, rows, columns, kernel, bias) {
    const y = biased(rows * columns, outputs, weights, bias);
    for (let i = 0; i < height; i++) {
      for (let j = 0; j < width; j++) {
        for (let a = 0; a < 3 && 2 * i + a < rows; a++) {
          for (let b = 0; b < 3 && 2 * j + b < columns; b++) {
            const at = ((2 * i + a) * columns + 2 * j + b) * outputs, w = kernel + (a * 3 + b) * inputs * outputs;
            addProduct(y, at, outputs, x, (i * width + j) * inputs, inputs, weights, w);
          }
        }
      }
    }
    return y;
  },
  // Blocks of pixels become the channels of one place; zeros fill the last ones.
  gather(x, _, height, width, channels, down, across) {
    const rows = Math.ceil(height / down), columns = Math.ceil(width / across), size = down * across * channels;
    const y = new Float32Array(rows * columns * size);
    for (let i = 0; i < height; i++) {
      for (let j = 0; j < width; j++) {
        const place = Math.floor(i / down) * columns + Math.floor(j / across);
        const at = place * size + ((i % down) * across + (j % across)) * channels, from = (i * width + j) * channels;
        for (let c = 0; c < channels; c++) y[at + c] = x[from + c];
      }
    }
    return y;
  },
  spread(x, _, rows, columns, size, down, across, height, width) {
    const channels = size / (down * across), y = new Float32Array(height * width * channels);
    for (let i = 0; i < height; i++) {
      for (let j = 0; j < width; j++) {
        const place = Math.floor(i / down) * columns + Math.floor(j / across);
        const from = place * size + ((i % down) * across + (j % across)) * channels, at = (i * width + j) * channels;
        for (let c = 0; c < channels; c++) y[at + c] = x[from + c];
      }
    }
    return y;
  },
  // From [places, parts, each] to [parts, places, each].
  part(x, _, places, parts, each) {
    const y = new Float32Array(x.length);
    for (let place = 0; place < places; place++) {
      for (let part = 0; part < parts; part++) {
        const from = (place * parts + part) * each;
        y.set(x.subarray(from, from + each), (part * places + place) * each);
      }
    }
    return y;
  },
  gate: (x) => x.subarray(0, x.length / 2).map((value, i) => value * ACTIVATIONS.sigmoid(x[x.length / 2 + i])),
  shift: (x, weights, size, start) => x.map((value, i) => value + weights[start + i]),
  waves(x, weights, inputs, number, frequencies) {
    const phases = new Float32Array(number), y = new Float32Array(inputs + 2 * number);
    addProduct(phases, 0, number, x, 0, inputs, weights, frequencies);
    y.set(x);
    y.set(phases.map(Math.sin), inputs);
    y.set(phases.map(Math.cos), inputs + number);
    return y;
  },
};

function run(steps, weights, x) {
  const kept = [];
  for (const [name, ...given] of steps) {
    if (name === "keep") kept.push(x);
    else if (name === "add") { const other = kept.pop(); x = x.map((value, i) => value + other[i]); }
    else x = STEPS[name](x, weights, ...given);
  }
  return x;
}

const smoothBound = (raw, bound) => bound * Math.tanh(raw / bound);

// Draws that are the same at each call with the same seed.
function normals(seed) {
  const uniform = uniforms(seed);
  return () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
}

function uniforms(seed) {
  let state = seed >>> 0;
  return () => { // mulberry32
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}
