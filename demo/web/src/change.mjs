// Runs mutators: shown at once, and taken back with a message if refused.
import {useCallback} from 'react';
import {useZero} from '@rocicorp/zero/react';
import {toast} from './toasts.jsx';

export function useChange() {
  const zero = useZero();
  return useCallback(
    async request => {
      const change = zero.mutate(request);
      const local = await change.client;
      if (local.type === 'error') {
        toast(local.error.message);
        return false;
      }
      change.server.then(remote => {
        // "zero" errors are about the connection, which has its own display.
        if (remote.type === 'error' && remote.error.type === 'app') toast(`Not saved: ${remote.error.message}`);
      });
      return true;
    },
    [zero],
  );
}

/** A key for a new row; long enough that two pages never make the same. */
export function newID(prefix) {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return prefix + Array.from(bytes, b => b.toString(36).padStart(2, '0')).join('');
}
