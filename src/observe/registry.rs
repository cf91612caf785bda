//! The metrics of all cores of this process.

use std::sync::{Arc, Mutex, PoisonError};

use super::metrics::Metrics;

static CORES: Mutex<Vec<Arc<Metrics>>> = Mutex::new(Vec::new());

/// The metrics of a core, in the list that [`all`] gives. A core that begins again in the same process, after a
/// new initial sync, goes on counting where it was; its levels begin at zero.
pub fn register(core: usize) -> Arc<Metrics> {
    let mut cores = CORES.lock().unwrap_or_else(PoisonError::into_inner);
    let at = match cores.binary_search_by_key(&core, |metrics| metrics.core()) {
        Ok(at) => {
            cores[at].reset_levels();
            at
        }
        Err(at) => {
            cores.insert(at, Arc::new(Metrics::new(core)));
            at
        }
    };
    cores[at].clone()
}

/// The metrics of all cores that were registered, in the order of their numbers.
pub fn all() -> Vec<Arc<Metrics>> {
    CORES.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::exposition::prometheus;

    #[test]
    fn a_core_that_begins_again_is_there_once_and_goes_on_counting() {
        let (second, first) = (register(901), register(900));
        second.connection_accepted();
        second.set_groups(5);
        first.set_groups(3);
        let again = register(901);
        again.connection_accepted();
        let cores: Vec<usize> =
            all().iter().map(|metrics| metrics.core()).filter(|core| *core >= 900).collect();
        assert_eq!(cores, [900, 901]);
        let page = prometheus(&all(), 0);
        let shows = |line: &str| assert!(page.lines().any(|own| own == line), "{line}\n{page}");
        shows("kelvin_connections_open{core=\"901\"} 2");
        shows("kelvin_client_groups{core=\"900\"} 3");
        shows("kelvin_client_groups{core=\"901\"} 0");
    }
}
