import {createRoot} from 'react-dom/client';
import {App} from './App.jsx';
import './styles/index.css';

const root = createRoot(document.getElementById('root'));
try {
  const response = await fetch('/config.json');
  if (!response.ok) throw new Error(`config.json: status ${response.status}`);
  root.render(<App config={await response.json()} />);
} catch (e) {
  root.render(
    <div className="notice" role="alert">
      <h1>The page cannot start</h1>
      <p>It could not learn where the sync server is ({e.message}). Is the demo still running?</p>
      <button onClick={() => location.reload()}>Try again</button>
    </div>,
  );
}
