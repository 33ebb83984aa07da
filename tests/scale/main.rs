//! `make scale`: the numbers of `docs/scale.md`. `scale [SEED]` simulates fleets of real agents' machines under one clock; `scale poll
//! NODEPREP` measures what one poll really costs a server and a node.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stdout,
    missing_docs,
    missing_debug_implementations,
    reason = "a program of its own: it has effects, and its messages go to whoever runs it"
)]

mod fleet;
mod poll;

use std::path::Path;

use fleet::{Fleet, Seen, run};
use nodeprep::agent::settings::{HOUR, MINUTE, SECOND};

const NODES: u32 = 10_000;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["poll", binary] => poll::measure(&std::fs::canonicalize(Path::new(binary)).unwrap()),
        [] => simulate(1),
        [seed] if seed.bytes().all(|byte| byte.is_ascii_digit()) => simulate(seed.parse().unwrap()),
        _ => println!("usage: scale [SEED], or scale poll PATH-OF-NODEPREP"),
    }
}

fn simulate(number: u64) {
    println!("{NODES} agents that ask every 5 minutes, seed {number}\n");
    println!("| what | when | requests per second: mean | p99 | most | independent | 304 | 200 | no answer |");
    println!("|---|---|---|---|---|---|---|---|---|");
    let fleet = |until| Fleet::new(NODES, number, until);

    let seen = run(&fleet(4 * HOUR));
    row(&seen, "all start in one millisecond", "first minute", 0, MINUTE);
    row(&seen, "", "first 5 minutes", 0, 5 * MINUTE);
    row(&seen, "", "4 hours", 0, 4 * HOUR);

    let seen = run(&Fleet { known: false, ..fleet(HOUR) });
    row(&seen, "the same, nodes that have no spec yet", "first second", 0, SECOND);
    row(&seen, "", "from then on", SECOND, HOUR);

    let capacity = 100;
    let seen = run(&Fleet { known: false, capacity, ..fleet(2 * HOUR) });
    row(&seen, "the same, a server for 100 requests per second", "first second", 0, SECOND);
    row(&seen, "", "first 20 minutes", SECOND, 20 * MINUTE);
    row(&seen, "", "second hour", HOUR, 2 * HOUR);

    let (gone, back) = (HOUR, 2 * HOUR);
    let seen = run(&Fleet { down: vec![(gone, back)], ..fleet(3 * HOUR) });
    row(&seen, "the server is away for an hour", "meanwhile", gone, back);
    row(&seen, "", "first minute after", back, back + MINUTE);
    row(&seen, "", "hour after", back, back + HOUR);

    let change = HOUR;
    let seen = run(&Fleet { changes: vec![change], ..fleet(2 * HOUR) });
    row(&seen, "a changed spec", "first 6 minutes", change, change + 6 * MINUTE);
    row(&seen, "", "hour after", change, change + HOUR);
    let curve = seen.curve(change, MINUTE);

    let (from, to) = (HOUR, 2 * HOUR);
    let broken = run(&Fleet { broken: Some((from, to)), ..fleet(3 * HOUR) });
    row(&broken, "a spec that nobody can use, for an hour", "first 10 minutes", from, from + 10 * MINUTE);
    row(&broken, "", "last half hour", from + 30 * MINUTE, to);
    row(&broken, "", "hour after it was mended", to, to + HOUR);

    plot("restarts per minute after a changed spec, splay 30 min", &curve, 2);
    let mut window = Fleet { changes: vec![HOUR], ..fleet(7 * HOUR) }.window("02:00-06:00");
    window.settings.poll = Some(15 * MINUTE);
    plot("the same with a window that opens an hour after the change, minutes from then on", &run(&window).curve(2 * HOUR, MINUTE), 2);
    let changes = vec![HOUR, HOUR + 15 * MINUTE, HOUR + 30 * MINUTE];
    let budget = run(&Fleet { changes, ..fleet(4 * HOUR) });
    plot("three changes, 15 minutes apart, budget 2 in an hour, minutes after the first", &budget.curve(HOUR, MINUTE), 5);
    println!("at most {} restarts of a node within an hour; {} nodes as the last one says", budget.most_in_an_hour(), budget.converged);
}

fn row(seen: &Seen, what: &str, when: &str, from: i64, to: i64) {
    let rate = seen.rate(from, to);
    let answers = seen.answers(from, to);
    let all = f64::from(answers.iter().sum::<u32>().max(1));
    let [same, whole, none] = answers.map(|count| format!("{:.1} %", f64::from(count) * 100.0 / all));
    println!("| {what} | {when} | {:.1} | {} | {} | {:.0} | {same} | {whole} | {none} |", rate.mean, rate.p99, rate.most, rate.bound);
}

/// A curve of counts by minute, `step` minutes to a line.
fn plot(what: &str, curve: &[u32], step: usize) {
    println!("\n{what} ({} in all)", curve.iter().sum::<u32>());
    for (line, minutes) in curve.chunks(step).enumerate() {
        let each = minutes.iter().sum::<u32>() / u32::try_from(minutes.len()).unwrap();
        println!("{:>4} min {each:>5}  {}", line * step, "#".repeat(usize::try_from(each / 10).unwrap()));
    }
}
