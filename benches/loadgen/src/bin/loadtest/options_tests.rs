//! Which command lines mean what.

use super::options::{Command, Options, Scenario, parse};

fn run(line: &str) -> Result<Options, String> {
    match parse(line.split_whitespace().map(Into::into))? {
        Command::Run(options) => Ok(*options),
        other => Err(format!("{other:?}")),
    }
}

#[test]
fn a_scenario_stands_by_itself_or_after_its_option() {
    for line in ["fanout", "--scenario fanout", "--scenario=fanout", "--quiet fanout"] {
        assert_eq!(run(line).unwrap().scenarios, [Scenario::Fanout], "{line}");
    }
    for line in ["", "all", "--scenario all"] {
        assert_eq!(run(line).unwrap().scenarios, Scenario::ALL, "{line}");
    }
    for scenario in Scenario::ALL {
        assert_eq!(run(scenario.name()).unwrap().scenarios, [scenario]);
    }
}

#[test]
fn defaults_fit_few_clients() {
    let options = run("--clients 3").unwrap();
    assert_eq!((options.rooms, options.stalled), (3, 1));
    let options = run("").unwrap();
    assert_eq!((options.clients, options.rooms, options.stalled), (1000, 10, 100));
    assert_eq!(run("--clients 1").unwrap().stalled, 0);
}

#[test]
fn bad_values_are_named() {
    for (line, part) in [
        ("--clients 0", "--clients takes a number from 1"),
        ("--clients many", "not \"many\""),
        ("--clients", "clients"),
        ("--duration 0", "--duration takes"),
        ("--duration NaN", "--duration takes"),
        ("--size 31", "--size takes a number from 32"),
        ("--rate -1", "--rate takes"),
        ("--churn-rate 0", "--churn-rate takes"),
        ("--clients 5 --rooms 6", "--rooms 6"),
        ("stall --clients 5 --stalled 5", "--stalled 5"),
        ("fanout echo", "one scenario"),
        ("swim", "no scenario \"swim\", only connect, "),
        ("--sise 128", "--sise"),
        ("--url wss://127.0.0.1/ echo", "no TLS"),
        ("--url ws://127.0.0.1:1/", "one scenario"),
        ("--pid 1", "--pid needs --url"),
    ] {
        let why = run(line).unwrap_err();
        assert!(why.contains(part), "{line}: {why}");
    }
}

#[test]
fn help_and_the_server_are_other_commands() {
    assert!(matches!(parse(["--help".into()]), Ok(Command::Help)));
    assert!(matches!(parse(["--serve", "--size", "99"].map(Into::into)), Ok(Command::Serve(99))));
}
