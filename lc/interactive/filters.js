const [slider, size, layer] = ["E", "k", "layer"].map(name => root.querySelector(`[name=${name}]`));
const percent = value => value.toFixed(1) + " %";

function draw(place, text, k) {
  const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
  const channels = layer.value == "first" ? 3 : 1, step = channels * k * k, tiles = root.querySelector(`[data-tiles=${place}]`);
  tiles.replaceChildren(...Array.from({ length: bytes.length / step }, (_, filter) => {
    const canvas = Object.assign(document.createElement("canvas"), { width: k, height: k });
    const image = new ImageData(k, k);
    for (let pixel = 0; pixel < k * k; pixel++) {
      for (let c = 0; c < 3; c++) image.data[4 * pixel + c] = bytes[filter * step + (c % channels) * k * k + pixel];
      image.data[4 * pixel + 3] = 255;
    }
    canvas.getContext("2d").putImageData(image, 0, 0);
    return canvas;
  }));
}

function show() {
  layer.querySelector("[value=last]").disabled = data[size.value].frozen.some(one => !one.last);
  if (layer.selectedOptions[0].disabled) layer.value = "first";
  const k = Number(size.value), shown = data[k], frozen = shown.frozen[slider.value], first = layer.value == "first";
  root.querySelector("output").textContent = frozen.E ? `E = ${frozen.E}` : "none";
  slider.setAttribute("aria-valuetext", root.querySelector("output").textContent);
  root.querySelector("[data-row=frozen]").innerHTML = !frozen.E
    ? "<b>Random</b> filters, as PyTorch initialises a convolution."
    : first ? `<b>Frozen random</b>: each picture combines ${shown.filters * frozen.E} random filters. ` +
        `Test accuracy ${percent(frozen.accuracy)}; similarity to the row below ${frozen.similarity.toFixed(2)} of 1.`
    : `<b>Frozen random</b>: kernels of the last layer with the largest norm. Test accuracy ${percent(frozen.accuracy)}.`;
  root.querySelector("[data-row=learned]").innerHTML =
    `<b>Learned</b> filters of the plain network, ${shown.network}. Test accuracy ${percent(shown.accuracy)}. ` +
    `All networks here: CIFAR-10, ${shown.epochs} epochs, one seed.`;
  draw("frozen", frozen[layer.value], k);
  draw("learned", shown[layer.value], k);
}

function choose() {  // another kernel size has other E: the slider stays at the nearest
  const frozen = data[size.value].frozen, E = slider.dataset.e ?? Infinity;
  slider.max = frozen.length - 1;
  slider.value = frozen.reduce((best, one, i) => Math.abs(one.E - E) < Math.abs(frozen[best].E - E) ? i : best, 0);
  show();
}

size.replaceChildren(...Object.keys(data).map(k => new Option(`${k} × ${k}`, k)));
size.value = Object.keys(data).includes("7") ? "7" : Object.keys(data)[0];
slider.addEventListener("input", () => { slider.dataset.e = data[size.value].frozen[slider.value].E; show(); });
size.addEventListener("change", choose);
layer.addEventListener("change", show);
slider.dataset.e = 0;
choose();
let playing;
root.querySelector("button").addEventListener("click", event => {  // from the start to the end, once
  clearInterval(playing);
  slider.value = 0;
  slider.dispatchEvent(new Event("input"));
  playing = setInterval(() => {
    slider.stepUp();
    slider.dispatchEvent(new Event("input"));
    if (slider.value == slider.max) clearInterval(playing);
  }, 900);
});
