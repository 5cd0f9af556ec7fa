// Images on canvases, and drawings and files as images. Images are flat arrays of values in [0, 1].

function asPixels(image, [height, width, channels]) {
  const pixels = new ImageData(width, height), colours = channels > 2 ? [0, 1, 2] : [0, 0, 0];
  for (let i = 0; i < height * width; i++) {
    for (let c = 0; c < 3; c++) pixels.data[4 * i + c] = Math.round(255 * image[i * channels + colours[c]]); // clamps
    pixels.data[4 * i + 3] = 255;
  }
  return pixels;
}

// Images in a row, or as many a row as given; null leaves a gap.
function paint(canvas, images, shape, columns = images.length) {
  const [height, width] = shape;
  canvas.width = columns * width;
  canvas.height = Math.ceil(images.length / columns) * height;
  const context = canvas.getContext("2d");
  images.forEach((image, i) => {
    if (image) context.putImageData(asPixels(image, shape), (i % columns) * width, Math.floor(i / columns) * height);
  });
}

// Strokes are lists of points [x, y] in units of the pad. As the data's own: size, middle and width of a line.
function imageOfDrawing(strokes, drawing, [height, width]) {
  const points = strokes.flat(), { box, stroke, paper } = drawing;
  const ends = [0, 1].map((axis) => points.map((point) => point[axis]).reduce(
    ([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity]));
  const [across, down] = ends.map(([low, high]) => high - low);
  const extent = Math.max(across, down), fits = box && extent > 0.02;
  const scale = fits ? [0, 0].fill(Math.max(box - stroke, 1) / extent) : [width, height];
  const middle = box ? ends.map(([low, high]) => (low + high) / 2) : [0.5, 0.5];
  const place = ([x, y]) => [width / 2 + scale[0] * (x - middle[0]), height / 2 + scale[1] * (y - middle[1])];
  const placed = strokes.map((line) => line.map(place));
  let ink = inkOf(placed, stroke, height, width);
  if (box && drawing.by_mass) {
    const total = ink.reduce((sum, value) => sum + value, 0);
    const centre = (of) => ink.reduce((sum, value, i) => sum + value * (of(i) + 0.5), 0) / total;
    const shift = [width / 2 - centre((i) => i % width), height / 2 - centre((i) => Math.floor(i / width))];
    ink = inkOf(placed.map((line) => line.map(([x, y]) => [x + shift[0], y + shift[1]])), stroke, height, width);
  }
  return paper ? ink.map((value) => 1 - value) : ink;
}

// Drawn several times as large, and averaged.
function inkOf(strokes, stroke, height, width) {
  const times = Math.max(1, Math.round(224 / Math.max(height, width)));
  const canvas = new OffscreenCanvas(width * times, height * times);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  Object.assign(context, { lineWidth: stroke * times, lineCap: "round", lineJoin: "round" });
  for (const line of strokes) {
    context.beginPath();
    line.forEach(([x, y], i) => context[i ? "lineTo" : "moveTo"](x * times, y * times));
    if (line.length === 1) context.lineTo(line[0][0] * times, line[0][1] * times + 0.01);
    context.stroke();
  }
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height), ink = new Float32Array(height * width);
  for (let y = 0; y < canvas.height; y++) {
    for (let x = 0; x < canvas.width; x++) {
      ink[Math.floor(y / times) * width + Math.floor(x / times)] += data[4 * (y * canvas.width + x) + 3];
    }
  }
  return ink.map((sum) => sum / (255 * times * times));
}

// A picture file, cropped or padded to the run's shape. The browser's scaling is not quite Python's.
async function imageOfFile(file, [height, width, channels], background, crop) {
  const bitmap = await createImageBitmap(file), canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true }), ratios = [width / bitmap.width, height / bitmap.height];
  const scale = crop ? Math.max(...ratios) : Math.min(...ratios), [w, h] = [scale * bitmap.width, scale * bitmap.height];
  Object.assign(context, { fillStyle: background, imageSmoothingQuality: "high" });
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, (width - w) / 2, (height - h) / 2, w, h);
  const { data } = context.getImageData(0, 0, width, height), image = new Float32Array(height * width * channels);
  for (let i = 0; i < height * width; i++) {
    const [r, g, b] = data.subarray(4 * i, 4 * i + 3), grey = 0.299 * r + 0.587 * g + 0.114 * b;
    for (let c = 0; c < channels; c++) image[i * channels + c] = (channels === 3 ? data[4 * i + c] : grey) / 255;
  }
  return image;
}
