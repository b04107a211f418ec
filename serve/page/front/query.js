// The query: words in the box, and terms with weights, each of which is words, an item or a file.

import { all, button, find, icon, make, notify } from './dom.js';
import { Problem, ask } from './client.js';
import { bytes, known, pictured, plural, signed, singular } from './words.js';
import { empty, go, itemTerm, state, vectorTerm } from './state.js';

const LONGEST_RECORDING_S = 30;

const words = find('.words'), terms = find('.terms'), fileInput = find('.file'), recorder = find('.recorder');
const files = new Map();     // packed vector -> the file it is of, so that it can be read as something else
const previews = new Map();  // packed vector -> the address of its picture
const pending = [];          // {name, leaving}: files that are being read

/** Shows the query of a state. */
export function showQuery(shown = state()) {
  if (document.activeElement !== words || !words.value) words.value = shown.words;
  terms.replaceChildren(...shown.terms.map((term, place) => termOf(term, place)), ...pending.map(waitingTerm));
  terms.hidden = !terms.children.length;
  compose();
}

function compose() {
  find('.compose').hidden = !words.value.trim();
}

function termOf(term, place) {
  const label = term.words !== undefined ? '“' + term.words + '”' : term.name || 'item ' + term.item;
  const slider = make('input', { type: 'range', min: '-1', max: '1', step: '0.1', value: String(term.weight), className: 'weight', 'aria-label': 'Weight of ' + label, 'aria-valuetext': signed(term.weight) });
  const told = make('output', {}, signed(term.weight));
  const gone = make('button', { type: 'button', className: 'remove', 'aria-label': 'Remove ' + label, title: 'Remove' }, icon('close'));
  const item = make('li', { className: 'term' }, picture(term), make('span', { className: 'label', title: label, dir: 'auto' }, label), readAs(term, place), slider, told, gone);
  const paint = weight => { item.classList.toggle('negative', weight < 0); item.classList.toggle('ignored', weight === 0); };
  paint(term.weight);
  slider.addEventListener('input', () => {
    const weight = Math.round(slider.value * 10) / 10;
    slider.setAttribute('aria-valuetext', signed(weight));
    told.textContent = signed(weight);
    paint(weight);
  });
  slider.addEventListener('change', () => {
    changeTerm(place, { ...term, weight: Math.round(slider.value * 10) / 10 });
    all('.weight', terms)[place]?.focus();
  });
  gone.addEventListener('click', () => remove(place));
  item.addEventListener('keydown', event => { if (event.key === 'Delete' && event.target.tagName !== 'SELECT') remove(place); });
  return item;
}

function waitingTerm(file) {
  return make('li', { className: 'term' }, icon('file'), make('span', { className: 'label', dir: 'auto' }, file.name),
    make('span', { className: 'spin', role: 'img', 'aria-label': 'being read' }),
    button('Cancel', () => file.leaving.abort(), 'quiet-button'));
}

function picture(term) {
  const kind = term.words !== undefined ? 'text' : term.modality || 'file';
  const address = term.item !== undefined && pictured(term.modality) ? 'v1/items/' + term.item + '/thumbnail' : previews.get(term.packed);
  if (!address) return icon(kind);
  const image = make('img', { src: address, alt: '' });
  image.addEventListener('error', () => image.replaceWith(icon(kind)));
  return image;
}

function readAs(term, place) {
  // What a file is cannot always be told from its content: a depth map looks like any picture.
  const file = files.get(term.packed);
  if (!file || term.modality === 'text') return null;
  const select = make('select', { 'aria-label': 'Read ' + term.name + ' as', title: 'Read this file as' },
    ...known().modalities.map(name => make('option', { value: name, selected: name === term.modality }, singular(name))));
  select.addEventListener('change', () => read(file, select.value, found => changeTerm(place, { ...found, weight: term.weight })));
  return select;
}

const changeTerm = (place, term) => go({ terms: state().terms.map((other, number) => number === place ? term : other), nearest: false }, { replace: true });

function remove(place) {
  go({ terms: state().terms.filter((_, number) => number !== place), nearest: false });
  (all('.remove', terms)[Math.min(place, state().terms.length - 1)] || words).focus();
}

/** Searches for the typed words. */
export function searchWords() {
  go({ view: 'library', words: words.value.trim(), nearest: false, item: null });
}

function addWords(weight) {
  const text = words.value.trim();
  if (!text) { words.focus(); return; }
  words.value = '';
  go({ view: 'library', words: '', terms: [...state().terms, { words: text, weight }], nearest: false });
  words.focus();
}

/** Adds an item to the query; `alone`: it becomes the whole query. */
export function addItem(item, weight, alone) {
  const others = alone ? [] : state().terms.filter(term => term.item !== item.id);
  if (alone) words.value = '';
  go({ view: 'library', words: alone ? '' : state().words, terms: [...others, itemTerm(item, weight)], item: null, nearest: false });
}

/** Searches with files: each becomes a term. `alone`: they become the whole query. */
export async function searchFiles(found, { alone = false } = {}) {
  if (alone) { words.value = ''; go({ words: '', terms: [], view: 'library', item: null }, { replace: true }); }
  for (const file of found) {
    if (file.size > known().max_bytes) {
      notify(file.name + ' is too large', 'It has ' + bytes(file.size) + '; the server takes up to ' + bytes(known().max_bytes) + '.');
      continue;
    }
    await read(file, '', term => go({ view: 'library', terms: [...state().terms, term], nearest: false, item: null }));
  }
}

/** Has a file read as a kind ('' for what it looks like) and calls `use` with its term. */
async function read(file, modality, use) {
  const waiting = { name: file.name, leaving: new AbortController() };
  pending.push(waiting);
  showQuery();
  const form = new FormData();
  form.append('file', file, file.name);
  if (modality) form.append('modality', modality);
  try {
    const answer = await ask('vectors', { method: 'POST', form, signal: waiting.leaving.signal });
    pending.splice(pending.indexOf(waiting), 1);
    const term = vectorTerm(answer.vector, answer.modality, file.name);
    files.set(term.packed, file);
    if (file.type.startsWith('image/')) previews.set(term.packed, URL.createObjectURL(file));
    use(term);
  } catch (error) {
    pending.splice(pending.indexOf(waiting), 1);
    showQuery();
    if (error.name === 'AbortError') return;
    if (!(error instanceof Problem)) throw error;
    const others = (error.readAs || []).map(name => ({ label: 'Read it as ' + singular(name), act: () => read(file, name, use) }));
    const again = ['busy', 'gone', 'offline', 'late'].includes(error.kind) ? [{ label: 'Try again', act: () => read(file, modality, use) }] : [];
    notify(error.code === 'unusable_medium' ? file.name + ' could not be used' : error.title, error.text, [...others, ...again], error);
  }
}

/** Shows the queries that the library can answer, or hides them. */
export function showExamples(on) {
  const place = find('.examples-row'), { examples } = known();
  place.hidden = !on || !examples?.length;
  if (place.hidden || place.children.length) return;
  place.append(make('span', { className: 'quiet' }, 'Try'), ...examples.map(example => {
    const parts = example.terms.flatMap((term, number) => [number || term.weight < 0 ? make('i', {}, term.weight < 0 ? '−' : '+') : null, picture(term), make('span', { dir: 'auto' }, term.words ?? term.name)]);
    const made = make('button', { type: 'button', className: 'chip example' }, ...parts, example.want ? make('small', {}, 'in ' + plural(example.want)) : null);
    made.addEventListener('click', () => {
      const [first, ...others] = example.terms, alone = first.words !== undefined && !others.length;
      words.value = '';
      go({ ...empty(), words: alone ? first.words : '', terms: alone ? [] : example.terms, kinds: example.want ? [example.want] : [] });
    });
    return made;
  }));
}

// ---- Microphone and camera ----

async function record(kind) {
  if (!recorder.hidden) return;
  const sound = kind === 'microphone';
  if (!navigator.mediaDevices) {
    notify('Recording does not work here', 'Browsers allow it only on https addresses and on localhost.');
    return;
  }
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia(sound ? { audio: true } : { video: { width: 640 } });
  } catch (error) {
    const denied = error.name === 'NotAllowedError';
    notify(denied ? 'The browser was not allowed to use the ' + kind : 'No ' + kind + ' was found',
      denied ? 'Allow it beside the address of this page, then try again.' : 'Connect one, or add a file instead.');
    return;
  }
  const end = () => {
    stream.getTracks().forEach(track => track.stop());
    recorder.hidden = true;
    recorder.replaceChildren();
    find('[data-do="' + kind + '"]').focus();
  };
  recorder.hidden = false;
  (sound ? recordSound : takePicture)(stream, end);
}

function recordSound(stream, end) {
  const media = new MediaRecorder(stream);
  const parts = [];
  const time = make('span', { role: 'timer' }, 'Recording 0 s');
  let seconds = 0, kept = true;
  const counting = setInterval(() => {
    seconds += 1;
    time.textContent = 'Recording ' + seconds + ' s';
    if (seconds >= LONGEST_RECORDING_S) media.stop();
  }, 1000);
  media.addEventListener('dataavailable', event => parts.push(event.data));
  media.addEventListener('stop', () => {
    clearInterval(counting);
    end();
    const type = media.mimeType.split(';')[0];
    const suffix = { 'audio/webm': '.weba', 'audio/mp4': '.m4a', 'audio/ogg': '.ogg' }[type] || '.weba';
    if (kept) searchFiles([new File(parts, 'recording' + suffix, { type })]);
  });
  const stop = button('Stop and search', () => media.stop(), 'primary');
  recorder.replaceChildren(make('span', { className: 'dot' }), time, stop, button('Cancel', () => { kept = false; media.stop(); }, 'secondary'));
  media.start();
  stop.focus();
}

function takePicture(stream, end) {
  const view = make('video', { autoplay: true, muted: true, playsInline: true, 'aria-label': 'What the camera sees' });
  view.srcObject = stream;
  const shoot = button('Take the picture', () => {
    const canvas = make('canvas', { width: view.videoWidth, height: view.videoHeight });
    canvas.getContext('2d').drawImage(view, 0, 0);
    canvas.toBlob(blob => searchFiles([new File([blob], 'camera.jpg', { type: 'image/jpeg' })]), 'image/jpeg', 0.92);
    end();
  }, 'primary');
  shoot.disabled = true;
  view.addEventListener('loadeddata', () => { shoot.disabled = false; shoot.focus(); });
  recorder.replaceChildren(view, shoot, button('Cancel', end, 'secondary'));
}

// ---- What begins a query ----

/** Makes the query bar work; `dropped(files)` is asked what to do with files that fall on the page. */
export function startQuery(dropped) {
  find('.ask').addEventListener('submit', event => { event.preventDefault(); searchWords(); });
  words.addEventListener('input', compose);
  words.addEventListener('search', () => { if (!words.value) searchWords(); });
  words.addEventListener('keydown', event => {
    const first = event.key === 'ArrowDown' && find('.grid .open[tabindex="0"]');
    if (first) { event.preventDefault(); first.focus(); }
  });
  fileInput.addEventListener('change', () => { searchFiles([...fileInput.files]); fileInput.value = ''; });
  const acts = { file: () => fileInput.click(), microphone: () => record('microphone'), camera: () => record('camera'), plus: () => addWords(1), minus: () => addWords(-1) };
  find('.ask').addEventListener('click', event => acts[event.target.closest('[data-do]')?.dataset.do]?.());
  document.addEventListener('paste', event => {
    const found = [...(event.clipboardData || {}).files || []];
    if (found.length) { event.preventDefault(); searchFiles(found); }
  });
  const carries = event => event.dataTransfer && [...event.dataTransfer.types].includes('Files');
  document.addEventListener('dragover', event => { if (carries(event)) { event.preventDefault(); find('.drop').hidden = false; } });
  document.addEventListener('dragleave', event => { if (!event.relatedTarget) find('.drop').hidden = true; });
  document.addEventListener('drop', event => {
    if (!carries(event)) return;
    event.preventDefault();
    find('.drop').hidden = true;
    dropped([...event.dataTransfer.files]);
  });
}

/** What this model understands decides which ways in there are. */
export function fitQuery() {
  const { modalities } = known();
  find('[data-do="microphone"]').hidden = !modalities.includes('audio');
  find('[data-do="camera"]').hidden = !modalities.includes('image');
  words.disabled = !modalities.includes('text');
  if (words.disabled) words.placeholder = 'Drop a file here (this model reads no text)';
}
