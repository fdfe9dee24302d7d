//! Programs that fetch another program before they become it.
//!
//! Nothing of what they are given is changed or run by itself: whether something is fetched, only the
//! runner knows. Its first start is given more time instead, and is shown as what it may be.

/// Whether starting this may have to fetch a program first.
pub fn fetches(command: &str, args: &[String]) -> bool {
    let mut words = args.iter().map(String::as_str).filter(|word| !word.starts_with('-'));
    match program(command) {
        "npx" | "pnpx" | "bunx" | "uvx" => true,
        "pnpm" | "yarn" => words.next() == Some("dlx"),
        "npm" => matches!(words.next(), Some("exec" | "x")),
        "bun" => words.next() == Some("x"),
        "uv" => match words.next() {
            Some("run" | "x") => true,
            Some("tool") => words.next() == Some("run"),
            Some(_) | None => false,
        },
        "pipx" => words.next() == Some("run"),
        "deno" => matches!(words.next(), Some("run" | "x")),
        _ => container_run(command, args).is_some(),
    }
}

/// Where the word `run` stands in a command that runs a container, if it is one.
pub fn container_run(command: &str, args: &[String]) -> Option<usize> {
    if !matches!(program(command), "docker" | "podman" | "nerdctl") {
        return None;
    }
    let run = args.iter().position(|arg| arg == "run")?;
    // Before it stand options of the client and perhaps the word `container`, and no other command.
    let mut before = args[..run].iter().enumerate();
    let is_option = |(index, arg): (usize, &String)| {
        let is_value = index > 0 && args[index - 1].starts_with('-');
        arg.starts_with('-') || is_value || arg == "container"
    };
    before.all(is_option).then_some(run)
}

/// The name of a program without the way to it.
fn program(command: &str) -> &str {
    command.rsplit('/').next().unwrap_or(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn a_runner_of_packages_is_known_by_its_name_and_its_first_word() {
        for (command, line, expected) in [
            ("npx", "-y @modelcontextprotocol/server-everything", true),
            ("/usr/local/bin/npx", "", true),
            ("uvx", "mcp-server-time", true),
            ("bunx", "x", true),
            ("pnpm", "dlx x", true),
            ("pnpm", "start", false),
            ("npm", "exec -y x", true),
            ("npm", "--silent x y", true),
            ("npm", "run serve", false),
            ("uv", "--directory d run x", false),
            ("uv", "run x", true),
            ("uv", "tool run x", true),
            ("uv", "tool list", false),
            ("pipx", "run x", true),
            ("docker", "run -i --rm mcp/time", true),
            ("podman", "--remote run -i x", true),
            ("docker", "exec x", false),
            ("node", "npx", false),
            ("my-npx", "x", false),
        ] {
            assert_eq!(fetches(command, &args(line)), expected, "{command} {line}");
        }
    }

    #[test]
    fn the_word_run_of_a_container_is_found_behind_the_clients_own_options() {
        for (command, line, expected) in [
            ("docker", "run x", Some(0)),
            ("docker", "container run x", Some(1)),
            ("docker", "--context far run x", Some(2)),
            ("docker", "--context=far -D run x", Some(2)),
            ("docker", "exec x run", None),
            ("docker", "compose run x", None),
            ("runc", "run x", None),
        ] {
            assert_eq!(container_run(command, &args(line)), expected, "{command} {line}");
        }
    }
}
