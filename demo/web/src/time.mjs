const format = new Intl.RelativeTimeFormat(undefined, {numeric: 'auto', style: 'narrow'});
const STEPS = [
  ['year', 365 * 86_400],
  ['month', 30 * 86_400],
  ['day', 86_400],
  ['hour', 3600],
  ['minute', 60],
];

export function ago(ms) {
  const seconds = (ms - Date.now()) / 1000;
  for (const [unit, size] of STEPS) {
    if (Math.abs(seconds) >= size) return format.format(Math.trunc(seconds / size), unit);
  }
  return 'just now';
}

export const exact = ms => new Date(ms).toLocaleString();
