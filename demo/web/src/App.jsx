import {useMemo} from 'react';
import {ZeroProvider} from '@rocicorp/zero/react';
import {tokenOf} from '../../shared/identity.mjs';
import {mutators} from '../../shared/mutators.mjs';
import {schema} from '../../shared/schema.mjs';
import {Detail} from './Detail.jsx';
import {List} from './List.jsx';
import {Sidebar} from './Sidebar.jsx';
import {Toasts} from './toasts.jsx';
import {useRoute} from './route.mjs';
import {useMe} from './me.mjs';

export function App({config}) {
  const [me] = useMe();
  // A new context object would make the provider start over.
  const context = useMemo(() => ({userID: me}), [me]);
  return (
    <>
      {/* When the server no longer knows this client, the provider puts a new one
          in its place. What is open is in the address, so nothing moves. */}
      <ZeroProvider
        cacheURL={config.cacheURL}
        userID={me}
        auth={tokenOf(me)}
        context={context}
        schema={schema}
        mutators={mutators}
      >
        <Layout />
      </ZeroProvider>
      <Toasts />
    </>
  );
}

function Layout() {
  const [route] = useRoute();
  return (
    <div className={route.issue ? 'layout with-detail' : 'layout'}>
      <Sidebar />
      <List />
      {route.issue && <Detail key={route.issue} id={route.issue} />}
    </div>
  );
}
