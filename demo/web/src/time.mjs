const relative = new Intl.RelativeTimeFormat(undefined, {numeric: 'auto', style: 'narrow'});
const date = new Intl.DateTimeFormat(undefined, {day: 'numeric', month: 'short', year: 'numeric'});

const STEPS = [
  ['day', 86_400],
  ['hour', 3600],
  ['minute', 60],
];
const LONG = 30 * 86_400;

/** How long ago; the date, when that says more. */
export function ago(ms) {
  const seconds = (ms - Date.now()) / 1000;
  if (Math.abs(seconds) >= LONG) return date.format(ms);
  for (const [unit, size] of STEPS) {
    if (Math.abs(seconds) >= size) return relative.format(Math.trunc(seconds / size), unit);
  }
  return 'just now';
}

export const exact = ms => new Date(ms).toLocaleString();
