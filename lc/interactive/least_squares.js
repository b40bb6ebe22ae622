const [target, slider] = ["target", "n"].map(name => root.querySelector(`[name=${name}]`));
const banks = Object.fromEntries(Object.entries(data.banks).map(([k, bank]) => [k, bank.map(filter => filter.flat())]));
const dot = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);
const minus = (a, b, factor) => a.map((value, i) => value - factor * b[i]);
let wanted, parts;  // the target as one list of k * k numbers, and its part along each further random filter

function paint(canvas, values, largest) {  // grey is 0; white and black are the largest magnitude
  const k = Math.sqrt(values.length), image = new ImageData(k, k);
  values.forEach((value, i) => {
    const grey = Math.round(127.5 + 127.5 * Math.max(-1, Math.min(1, value / (largest || 1))));
    image.data.set([grey, grey, grey, 255], 4 * i);
  });
  Object.assign(canvas, { width: k, height: k }).getContext("2d").putImageData(image, 0, 0);
}

const peak = values => Math.max(...values.map(Math.abs));

function solve() {  // Gram and Schmidt, twice, because once loses digits
  const basis = [];
  parts = banks[Math.sqrt(wanted.length)].map(filter => {
    for (let twice = 0; twice < 2; twice++) for (const one of basis) filter = minus(filter, one, dot(filter, one));
    const norm = Math.sqrt(dot(filter, filter));
    basis.push(filter.map(value => value / norm));
    return basis.at(-1).map(value => value * dot(basis.at(-1), wanted));
  });
  const square = dot(wanted, wanted), errors = [1];
  for (const part of parts) errors.push(Math.max(0, errors.at(-1) - dot(part, part) / square));
  root.dataset.errors = JSON.stringify(errors.map(error => Number(error.toFixed(6))));
  return errors;
}

function show() {
  const d = wanted.length, n = Number(slider.value), errors = JSON.parse(root.dataset.errors);
  const best = parts.slice(0, n).reduce((sum, part) => minus(sum, part, -1), Array(d).fill(0)), largest = peak(wanted);
  for (const [place, values] of [["target", wanted], ["combination", best], ["rest", minus(wanted, best, 1)]])
    paint(root.querySelector(`[data-image=${place}]`), values, largest);
  const at = (count, error) => [22 + 125 * count / d, 85 - 80 * error];
  const line = root.querySelector("[data-line=theory]"), [[x1, y1], [x2, y2]] = [at(0, 1), at(d, 0)];
  for (const [name, value] of Object.entries({ x1, y1, x2, y2 })) line.setAttribute(name, value);
  root.querySelector("[data-line=errors]").setAttribute("points", errors.map((error, i) => at(i, error).join()).join(" "));
  const [cx, cy] = at(n, errors[n]);
  for (const [name, value] of Object.entries({ cx, cy })) root.querySelector("circle").setAttribute(name, value);
  root.querySelector("output").textContent = `n = ${n} of ${d}`;
  root.querySelector("[data-text=d]").textContent = `k² = ${d}`;
  root.querySelector("[data-row=said]").textContent =
    `Squared error ${errors[n].toFixed(3)}; on average over random filters 1 − ${n}/${d} = ${(1 - n / d).toFixed(3)}.` +
    (n == d ? " As many random filters as pixels reach every target." : "");
  const bank = banks[Math.sqrt(d)];
  root.querySelector("[data-tiles=bank]").replaceChildren(...bank.map((filter, i) => {
    const canvas = document.createElement("canvas");
    paint(canvas, filter, peak(filter));
    canvas.style.opacity = i < n ? 1 : 0.15;
    return canvas;
  }));
}

function begin(values) {
  wanted = values;
  slider.max = wanted.length;
  solve();
  show();
}

target.replaceChildren(...Object.keys(data.targets).map(name => new Option(name)));
target.addEventListener("change", () => {
  const share = slider.value / slider.max, values = data.targets[target.value].flat();
  slider.max = values.length;
  slider.value = Math.round(share * values.length);
  begin(values);
});
slider.addEventListener("input", show);
root.querySelector("[data-image=target]").addEventListener("click", event => {  // grey, white, black
  const k = Math.sqrt(wanted.length), box = event.target.getBoundingClientRect(), largest = peak(wanted) || 1;
  const [x, y] = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height].map(
    place => Math.min(k - 1, Math.floor(place * k)));
  const painted = [...wanted], old = painted[y * k + x] / largest;
  painted[y * k + x] = largest * (old > 0.5 ? -1 : old < -0.5 ? 0 : 1);
  if (peak(painted) > 0) begin(painted);
});
root.querySelector("button").addEventListener("click", () => {
  const k = Math.sqrt(wanted.length);
  banks[k] = banks[k].map(filter => filter.map(() => (2 * Math.random() - 1) / k));
  begin(wanted);
});
slider.max = data.targets[target.value].flat().length;
slider.value = Math.round(slider.max / 3);
begin(data.targets[target.value].flat());
