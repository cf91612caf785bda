//! The command line, nothing else.

use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|name| name == "bench") {
        std::process::exit(kelvin::bench::main(&args[1..]));
    }
}
