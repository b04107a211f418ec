// What things are called and how they are written: kinds, dates, times, sizes, scores.

let library = { names: {}, items: {}, modalities: [], previews: {} };

/** Keeps what the server said of itself (`overview`), which names and previews are looked up in. */
export function learn(overview) {
  library = overview;
}

export const known = () => library;
export const singular = kind => (library.names[kind] || [kind, kind])[0];
export const plural = kind => (library.names[kind] || [kind, kind])[1];
export const previewOf = kind => library.previews[kind] || 'text';
/** Kinds of which a small picture is shown. */
export const pictured = kind => ['image', 'video', 'depth', 'thermal'].includes(kind);

export const number = value => value.toLocaleString('en');
export const counted = (value, one, many) => number(value) + ' ' + (value === 1 ? one : many);
export const signed = weight => (weight < 0 ? '−' : '+') + Math.abs(weight).toFixed(1);
export const nameOf = item => item.path.split('/').pop();
export const folderOf = item => item.path.split('/').slice(0, -1).join('/');

const MONTHS = ['January', 'February', 'March', 'April', 'May', 'June', 'July', 'August', 'September', 'October', 'November', 'December'];

/** `2024-05` -> `May 2024`, `` -> `No date`. */
export function monthTitle(month) {
  const [, year, place] = /^(\d{4})-(\d{2})/.exec(month || '') || [];
  return year ? MONTHS[place - 1] + ' ' + year : /^\d{4}$/.test(month || '') ? month : 'No date';
}

/** `2024-05-17T10:02:03` -> `17 May 2024, 10:02`. */
export function dateWords(date) {
  const [, year, month, day, , time] = /^(\d{4})-(\d{2})-(\d{2})(T(\d{2}:\d{2}))?/.exec(date || '') || [];
  return year ? Number(day) + ' ' + MONTHS[month - 1] + ' ' + year + (time ? ', ' + time : '') : date || '';
}

const CLOCK = 60;
export function clock(seconds) {
  const whole = Math.floor(seconds);
  const minutes = Math.floor(whole / CLOCK), rest = String(whole % CLOCK).padStart(2, '0');
  return minutes < CLOCK ? minutes + ':' + rest : Math.floor(minutes / CLOCK) + ':' + String(minutes % CLOCK).padStart(2, '0') + ':' + rest;
}

/** `0:05 to 0:15` for a stretch of a recording, '' for an item without times. */
export function span(item) {
  return item.start_s === null || item.start_s === undefined ? '' : clock(item.start_s) + ' to ' + clock(item.end_s);
}

export function bytes(count) {
  if (count < 1000) return count + ' bytes';
  const steps = ['kB', 'MB', 'GB', 'TB'];
  let value = count, step = -1;
  while (value >= 1000 && step < steps.length - 1) { value /= 1000; step += 1; }
  return value.toFixed(value < 10 ? 1 : 0) + ' ' + steps[step];
}

// Words for a hit, with the least probability from which they hold and, without a probability, the least score.
const MEANINGS = [[0.8, 5, 'strong', 'strong match'], [0.5, 3, 'likely', 'likely match'], [0.2, 2, 'weak', 'weak match']];

/** A hit -> the class and the words of its score. */
export function meaning(hit) {
  const known = hit.probability !== null && hit.probability !== undefined;
  for (const [likely, outstanding, name, words] of MEANINGS) {
    if (known ? hit.probability >= likely : hit.score >= outstanding) return [name, words];
  }
  return ['chance', 'may be chance'];
}

/** A hit -> what its score means, in a sentence or two. */
export function explained(hit) {
  const score = (Math.round(hit.score * 10) / 10 + 0).toFixed(1).replace('-', '−');
  const likely = hit.probability === null || hit.probability === undefined ? '' : ' It is what you asked for with a probability of ' + Math.round(hit.probability * 100) + ' %.';
  return (hit.keyword ? 'The words are in its name, caption or metadata. ' : '')
    + 'It is ' + score + ' standard deviations above the usual ' + singular(hit.modality) + ' of this library for this query: 0 is any item, 2 may be chance, 5 or more stands out. Cosine ' + hit.cosine.toFixed(2) + '.' + likely;
}
