//! What this tool can be called with, as data, and a call judged by it.

use std::collections::BTreeMap;

/// One command with its options and what is below it.
#[derive(Debug, Default)]
pub(crate) struct Grammar {
    /// By the name it is written with, dashes included.
    pub(crate) options: BTreeMap<String, Opt>,
    pub(crate) commands: BTreeMap<String, Grammar>,
    /// How many words it takes at most; nothing for any number.
    pub(crate) most: Option<usize>,
}

/// One option.
#[derive(Clone, Debug)]
pub(crate) struct Opt {
    pub(crate) takes_value: bool,
    /// The values it may have; empty for any.
    pub(crate) values: Vec<String>,
}

/// What is wrong with a call: which of its words, and why.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    pub(crate) word: usize,
    pub(crate) what: String,
    pub(crate) known: Vec<String>,
}

/// Does it stand for something else, as `<name>`, `$TAG`, `NAME` or `…`?
fn is_open(word: &str) -> bool {
    word.contains(|c: char| "<>[]{}$…*|'\"".contains(c))
        || word.contains("...")
        || word.chars().all(|c| c.is_ascii_uppercase() || "_-".contains(c))
}

impl Grammar {
    /// Judges the words behind the program's name.
    ///
    /// # Errors
    /// The first word that is not understood. What is missing is no error: a page may name a command alone.
    pub(crate) fn judge(&self, words: &[&str]) -> Result<(), Wrong> {
        let (mut command, mut count, mut is_loose) = (self, 0, false);
        let mut words = words.iter().copied().enumerate().peekable();
        while let Some((at, word)) = words.next() {
            let wrong = |what: String, known: Vec<String>| Err(Wrong { word: at, what, known });
            if word == "--" {
                return Ok(());
            } else if word.starts_with('-') && word.len() > 1 && !is_open(word.trim_start_matches('-')) {
                let (name, given) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
                let name =
                    if name.starts_with("--") { name } else { &name[..name.chars().take(2).map(char::len_utf8).sum()] };
                if ["--help", "-h", "--version", "-V"].contains(&name) {
                    continue;
                }
                let Some(option) = command.options.get(name).or(self.options.get(name)) else {
                    let known = command.options.keys().chain(self.options.keys()).cloned().collect();
                    return wrong(format!("there is no option {name}"), known);
                };
                let value =
                    if option.takes_value && given.is_none() { words.next().map(|(_, word)| word) } else { given };
                if let Some(value) = value.filter(|value| !option.values.is_empty() && !is_open(value))
                    && !option.values.iter().any(|known| known == value)
                {
                    return wrong(format!("{name} can't be {value}"), option.values.clone());
                }
            } else if is_open(word) {
                is_loose = true;
            } else if !command.commands.is_empty() {
                if word == "help" {
                    return Ok(());
                }
                let Some(next) = command.commands.get(word) else {
                    return wrong(format!("there is no command {word}"), command.commands.keys().cloned().collect());
                };
                command = next;
            } else {
                count += 1;
                if command.most.is_some_and(|most| count > most) && !is_loose {
                    return wrong(format!("{word} is one word too many"), Vec::new());
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_judged_word_by_word() {
        let flag = Opt { takes_value: false, values: Vec::new() };
        let format = Opt { takes_value: true, values: vec!["json".to_owned(), "human".to_owned()] };
        let pin =
            Grammar { options: [("--dry-run".to_owned(), flag)].into(), commands: BTreeMap::new(), most: Some(2) };
        let all = Grammar {
            options: [("--format".to_owned(), format)].into(),
            commands: [("pin".to_owned(), pin)].into(),
            most: Some(0),
        };
        let judge = |call: &str| all.judge(&call.split(' ').collect::<Vec<_>>()).map_err(|wrong| wrong.word);
        for fine in
            ["pin redis v1 --dry-run", "--format json pin NAME", "pin <name> … v1 v2", "pin --help", "pin x -- y z a"]
        {
            assert_eq!(judge(fine), Ok(()), "{fine}");
        }
        for (call, word) in [("pim", 0), ("pin --dry", 1), ("pin a b c", 3), ("pin --format yaml", 1)] {
            assert_eq!(judge(call), Err(word), "{call}");
        }
    }
}
