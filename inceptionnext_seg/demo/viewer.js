// Runs once for each viewer of the page; Gradio gives `element`, which stays, and `watch`. Its content comes and goes.
let shown = null;       // of the picture that is there: its figure, sizes, labels, and RGBA bytes as in viewer.pixels()

function load() {
  shown = null;
  const figure = element.querySelector('.viewer');
  if (!figure) return;
  const picture = new Image();
  picture.onload = () => {
    const canvas = document.createElement('canvas');
    canvas.width = picture.width;
    canvas.height = picture.height;
    const context = canvas.getContext('2d', {willReadFrequently: true});
    context.drawImage(picture, 0, 0);
    shown = {
      figure, width: picture.width, height: picture.height, full: figure.dataset.size.split(',').map(Number),
      bytes: context.getImageData(0, 0, picture.width, picture.height).data,
      ...JSON.parse(figure.dataset.labels)};
    paint(null);
    figure.dataset.ready = 'true';
  };
  picture.src = figure.dataset.pixels;
}

// The colours of all classes, or of one.
function paint(only) {
  const {figure, width, height, bytes, palette} = shown;
  const canvas = figure.querySelector('canvas');
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext('2d');
  const image = context.createImageData(width, height);
  for (let i = 0; i < bytes.length; i += 4) {
    const index = bytes[i] + 256 * bytes[i + 1];
    if (only !== null && index !== only) continue;
    image.data.set(palette[index], i);
    image.data[i + 3] = 255;
  }
  context.putImageData(image, 0, 0);
}

// At a point, 0 to 1 of width and height: class, confidence and pixel. All viewers show theirs of the same point.
function tell({x, y}) {
  if (!shown) return;
  const column = Math.min(Math.floor(x * shown.width), shown.width - 1);
  const row = Math.min(Math.floor(y * shown.height), shown.height - 1);
  const i = 4 * (row * shown.width + column);
  const name = shown.classes[shown.bytes[i] + 256 * shown.bytes[i + 1]];
  const at = [x, y].map((value, axis) => Math.min(Math.floor(value * shown.full[axis]), shown.full[axis] - 1));
  const tip = shown.figure.querySelector('.tip');
  tip.textContent = `${name} ${Math.round(shown.bytes[i + 2] / 2.55)} % (${at[0]}, ${at[1]})`;
  tip.style.left = `${100 * x}%`;
  tip.style.top = `${100 * y}%`;
  tip.dataset.side = x > 0.6 ? 'left' : 'right';
  tip.dataset.on = 'true';
}

element.addEventListener('pointermove', event => {
  const stage = event.target.closest('.stage');
  if (!stage) return;
  const box = stage.getBoundingClientRect();
  const limit = value => Math.max(0, Math.min(value, 1));
  document.dispatchEvent(new CustomEvent('viewer-point', {detail: {
    x: limit((event.clientX - box.left) / box.width), y: limit((event.clientY - box.top) / box.height)}}));
});
element.addEventListener('pointerout', event => {
  if (event.target.closest('.stage')) document.dispatchEvent(new CustomEvent('viewer-point', {detail: null}));
});
document.addEventListener('viewer-point', event => {
  if (event.detail) tell(event.detail);
  else if (shown) delete shown.figure.querySelector('.tip').dataset.on;
});
for (const [kind, only] of [['pointerover', true], ['pointerout', false], ['focusin', true], ['focusout', false]]) {
  element.addEventListener(kind, event => {
    const entry = event.target.closest('[data-class]');
    if (entry && shown) paint(only ? Number(entry.dataset.class) : null);
  });
}
watch('value', load);
load();
