//! The command line, nothing else.

use kelvin_io::allocator::Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting::new();

fn main() {
    let mut args = std::env::args_os().skip(1).peekable();
    if args.peek().is_some_and(|first| first == "bench") {
        eprintln!("kelvin: the load generator is a program of its own: cargo run --release -p kelvin-bench");
        std::process::exit(2);
    }
    let status = match kelvin::config::load(args) {
        Ok(kelvin::config::Outcome::Help(text)) => {
            print!("{text}");
            0
        }
        Ok(kelvin::config::Outcome::Version) => {
            println!("kelvin {}", env!("CARGO_PKG_VERSION"));
            0
        }
        Ok(kelvin::config::Outcome::Run(parsed)) => kelvin::server::run::run(*parsed),
        Err(error) => {
            eprintln!("kelvin: {error}");
            kelvin::config::ConfigError::EXIT_STATUS
        }
    };
    std::process::exit(status);
}
