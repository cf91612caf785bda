import {useConnectionState, useZero} from '@rocicorp/zero/react';

const WORDS = {
  connected: 'Connected',
  connecting: 'Connecting …',
  disconnected: 'Offline',
  'needs-auth': 'Sign-in refused',
  error: 'Stopped',
  closed: 'Closed',
};

export function Connection() {
  const zero = useZero();
  const state = useConnectionState();
  const stuck = state.name === 'error' || state.name === 'needs-auth';
  const reason = typeof state.reason === 'string' ? state.reason : undefined;
  return (
    <div className={`connection ${state.name}`} role="status" aria-label="Connection" title={reason}>
      <i />
      <span>{WORDS[state.name] ?? state.name}</span>
      {stuck && <button onClick={() => zero.connection.connect()}>Try again</button>}
    </div>
  );
}
