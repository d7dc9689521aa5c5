//! The syntax of multipath.conf (multipath.conf.5, SYNTAX): sections in braces, one keyword and one
//! value on a line, values in double quotes if they have blanks, comments from `#` or `!` to the
//! end of the line.

/// Sections stand in sections two deep; more is no multipath.conf.
const DEPTH_MAX: usize = 4;

/// Something in a section. Lines count from one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Item {
    /// A keyword and its value.
    Pair { line: usize, keyword: String, value: String },
    /// A section in it.
    Section(Section),
}

/// `keyword { … }`
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Section {
    pub(super) line: usize,
    pub(super) keyword: String,
    pub(super) items: Vec<Item>,
}

/// A file's sections, and what is wrong with its form.
pub(super) fn parse(text: &str) -> (Vec<Item>, Vec<(usize, String)>) {
    let mut parser = Parser { open: vec![Section::default()], errors: Vec::new() };
    let mut pending: Option<(usize, String)> = None;
    for (line, raw) in (1..).zip(text.lines()) {
        let (tokens, error) = tokens(raw);
        parser.errors.extend(error.map(|error| (line, error)));
        let mut words: Vec<String> = Vec::new();
        for token in tokens {
            match token {
                Token::Word(word) => words.push(word),
                Token::Open => {
                    let keyword = std::mem::take(&mut words);
                    let named = keyword.into_iter().next().map(|keyword| (line, keyword));
                    let named = named.or_else(|| pending.take());
                    parser.open(line, named);
                }
                Token::Close => {
                    parser.pair(line, std::mem::take(&mut words), &mut pending);
                    parser.no_section(pending.take());
                    parser.close(line);
                }
            }
        }
        parser.pair(line, words, &mut pending);
    }
    parser.no_section(pending);
    parser.end()
}

enum Token {
    Word(String),
    Open,
    Close,
}

/// The tokens of one line, and what is wrong with it.
fn tokens(line: &str) -> (Vec<Token>, Option<String>) {
    let (mut tokens, mut rest) = (Vec::new(), line.chars().peekable());
    while let Some(c) = rest.next() {
        match c {
            '#' | '!' => break,
            '{' => tokens.push(Token::Open),
            '}' => tokens.push(Token::Close),
            '"' => {
                let mut word = String::new();
                loop {
                    match rest.next() {
                        // Two of them stand for one.
                        Some('"') if rest.peek() == Some(&'"') => {
                            rest.next();
                            word.push('"');
                        }
                        Some('"') => break,
                        Some(c) => word.push(c),
                        None => {
                            tokens.push(Token::Word(word));
                            return (tokens, Some("a quote has no end on its line".to_owned()));
                        }
                    }
                }
                tokens.push(Token::Word(word));
            }
            c if c.is_whitespace() => {}
            c => {
                let mut word = String::from(c);
                let ends = |c: &char| c.is_whitespace() || "#!{}\"".contains(*c);
                while let Some(c) = rest.next_if(|c| !ends(c)) {
                    word.push(c);
                }
                tokens.push(Token::Word(word));
            }
        }
    }
    (tokens, None)
}

struct Parser {
    /// The file, and the sections that are open; never empty.
    open: Vec<Section>,
    errors: Vec<(usize, String)>,
}

impl Parser {
    fn top(&mut self) -> &mut Section {
        self.open.last_mut().expect("the file itself is never closed")
    }

    fn open(&mut self, line: usize, named: Option<(usize, String)>) {
        let (line, keyword) = named.unwrap_or_else(|| {
            self.errors.push((line, "`{` without a section's name before it".to_owned()));
            (line, String::new())
        });
        if self.open.len() > DEPTH_MAX {
            self.errors.push((line, "sections stand too deep in one another".to_owned()));
            // Its end closes nothing then; what is in it counts for the section around it.
            return;
        }
        self.open.push(Section { line, keyword, items: Vec::new() });
    }

    fn close(&mut self, line: usize) {
        if self.open.len() == 1 {
            self.errors.push((line, "`}` closes nothing".to_owned()));
        } else if let Some(section) = self.open.pop() {
            self.top().items.push(Item::Section(section));
        }
    }

    /// A keyword alone may be a section's name whose brace stands on the next line.
    fn pair(&mut self, line: usize, words: Vec<String>, pending: &mut Option<(usize, String)>) {
        let mut words = words.into_iter();
        let Some(keyword) = words.next() else { return };
        self.no_section(pending.take());
        let values: Vec<String> = words.collect();
        if values.is_empty() {
            *pending = Some((line, keyword));
            return;
        }
        self.top().items.push(Item::Pair { line, keyword, value: values.join(" ") });
    }

    /// A keyword that stood alone was no section.
    fn no_section(&mut self, pending: Option<(usize, String)>) {
        if let Some((line, keyword)) = pending {
            let value = String::new();
            self.top().items.push(Item::Pair { line, keyword, value });
        }
    }

    fn end(mut self) -> (Vec<Item>, Vec<(usize, String)>) {
        while self.open.len() > 1 {
            let section = self.top();
            let error = format!("section `{}` has no end", section.keyword);
            let line = section.line;
            self.errors.push((line, error));
            self.close(line);
        }
        let items = self.open.pop().map(|file| file.items).unwrap_or_default();
        (items, self.errors)
    }
}
