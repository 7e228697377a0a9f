//! The tokens of a program, changed so that jaq's parser accepts what jq's accepts, and keeps
//! information that it would drop. Each function is for one difference and can be dropped without
//! it.

use std::borrow::Cow;

use jaq_core::load::lex::{StrPart, Tok, Token};

/// The name of the call that parentheses become, so that the tree shows where they were.
pub(super) const PARENTHESES: &str = "(";
/// The first variable of an array that stands for `… ?// …`; no user can write it.
pub(super) const ALTERNATIVES: &str = "$?//";

type Tokens<'s> = Vec<Token<&'s str>>;

/// Joins pairs of surrogates in strings into one character; a single one is invalid.
pub(super) fn surrogates(source: &str) -> Cow<'_, str> {
    let code = |text: &str| {
        let digits = text.strip_prefix("\\u")?.get(..4)?;
        u32::from_str_radix(digits, 16).ok().filter(|code| (0xd800..0xe000).contains(code))
    };
    let (mut changed, mut kept, mut at) = (String::new(), 0, 0);
    while let Some(found) = source[at..].find('\\') {
        at += found;
        let Some(first) = code(&source[at..]) else {
            at += 1 + source[at + 1..].chars().next().map_or(0, char::len_utf8);
            continue;
        };
        changed.push_str(&source[kept..at]);
        at += 6;
        let second = code(&source[at..]).filter(|second| first < 0xdc00 && *second >= 0xdc00);
        let char = second.and_then(|second| {
            char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00))
        });
        changed.push(char.unwrap_or(char::REPLACEMENT_CHARACTER));
        at += if char.is_some() { 6 } else { 0 };
        kept = at;
    }
    if kept == 0 {
        return Cow::Borrowed(source);
    }
    changed.push_str(&source[kept..]);
    Cow::Owned(changed)
}

/// The tokens of a program.
pub(super) fn program<'s>(source: &'s str, tokens: Tokens<'s>) -> Tokens<'s> {
    term(fractions(source, tokens))
}

fn term(tokens: Tokens<'_>) -> Tokens<'_> {
    walk(tokens, false)
}

/// Joins `.5` into a number; jaq's lexer makes a point and another number of it.
fn fractions<'s>(source: &'s str, tokens: Tokens<'s>) -> Tokens<'s> {
    let mut changed: Tokens<'s> = Vec::with_capacity(tokens.len());
    for Token(text, token) in tokens {
        let token = match token {
            Tok::Block(inner) => Tok::Block(fractions(source, inner)),
            Tok::Num => {
                let at = text.as_ptr().addr().checked_sub(source.as_ptr().addr());
                let whole = at.and_then(|at| source.get(at.checked_sub(1)?..at + text.len()));
                match (changed.last(), whole) {
                    (Some(Token(".", _)), Some(whole)) if whole.starts_with('.') => {
                        changed.pop();
                        changed.push(Token(whole, Tok::Num));
                        continue;
                    }
                    _ => Tok::Num,
                }
            }
            token => token,
        };
        changed.push(Token(text, token));
    }
    changed
}

/// Rewrites the tokens of a term, or of the entries of an object, where parentheses may be a key.
fn walk(tokens: Tokens<'_>, in_object: bool) -> Tokens<'_> {
    let mut changed: Tokens<'_> = Vec::with_capacity(tokens.len());
    let mut tokens = tokens.into_iter().peekable();
    let mut at_key = in_object;
    while let Some(Token(text, token)) = tokens.next() {
        let is_key = std::mem::replace(&mut at_key, in_object && text == ",");
        match token {
            Tok::Word if matches!(text, "reduce" | "foreach") && !is_key => {
                changed.push(Token(text, Tok::Word));
                let mut open = 1;
                let source = std::iter::from_fn(|| {
                    tokens.next_if(|Token(text, token)| {
                        let is_word = matches!(token, Tok::Word);
                        match *text {
                            "reduce" | "foreach" if is_word => open += 1,
                            "as" if is_word => open -= 1,
                            _ => {}
                        }
                        open > 0
                    })
                });
                changed.extend(grouped(walk(source.collect(), false)));
            }
            Tok::Block(inner) if text.starts_with('{') => {
                changed.push(Token(text, Tok::Block(walk(inner, true))))
            }
            Tok::Block(inner)
                if text.starts_with('(') && !is_key && is_group(changed.last(), &inner) =>
            {
                changed.push(Token(text.get(..1).unwrap_or(text), Tok::Word));
                changed.push(Token(text, Tok::Block(term(inner))));
            }
            Tok::Block(inner) => changed.push(Token(text, Tok::Block(term(inner)))),
            Tok::Str(parts) => {
                changed.push(Token(text, Tok::Str(parts.into_iter().map(part).collect())))
            }
            Tok::Word if text == "as" && !is_key => {
                changed.push(Token(text, Tok::Word));
                let mut alternatives = Vec::new();
                while let Some(first) =
                    tokens.next_if(|token| matches!(token.1, Tok::Var | Tok::Block(_)))
                {
                    alternatives.push(pattern(first));
                    // The lexer makes two tokens of `?//`.
                    if tokens.peek().is_none_or(|token| token.0 != "?") {
                        break;
                    }
                    drop((tokens.next(), tokens.next_if(|token| token.0 == "//")));
                }
                changed.extend(alternative(alternatives));
            }
            token => changed.push(Token(text, token)),
        }
    }
    changed
}

/// Groups the source of a loop, which may be any term; jaq's parser takes only the first part of
/// one without parentheses.
fn grouped(mut tokens: Tokens<'_>) -> Tokens<'_> {
    if tokens.len() < 2 {
        return tokens;
    }
    tokens.push(Token(")", Tok::Sym));
    vec![Token(PARENTHESES, Tok::Word), Token("(", Tok::Block(tokens))]
}

fn part<'s>(part: StrPart<&'s str, Token<&'s str>>) -> StrPart<&'s str, Token<&'s str>> {
    match part {
        StrPart::Term(Token(text, Tok::Block(inner))) => {
            StrPart::Term(Token(text, Tok::Block(term(inner))))
        }
        other => other,
    }
}

/// Returns whether parentheses after this token only group their contents.
fn is_group(before: Option<&Token<&str>>, inner: &[Token<&str>]) -> bool {
    const KEYWORDS: [&str; 10] =
        ["and", "or", "if", "then", "elif", "else", "try", "catch", "reduce", "foreach"];
    let follows = match before {
        None => true,
        Some(Token(text, Tok::Sym)) => !text.starts_with('.'),
        Some(Token(text, Tok::Word)) => KEYWORDS.contains(text),
        Some(_) => false,
    };
    follows && inner.len() > 1 && !inner.iter().any(|token| token.0 == ";")
}

/// Rewrites `{$name: pattern}`, which binds the value and destructures it: `{$name, name:
/// pattern}`.
fn pattern(token: Token<&str>) -> Token<&str> {
    let Token(text, Tok::Block(inner)) = token else { return token };
    let mut changed = Vec::with_capacity(inner.len());
    let mut inner = inner.into_iter().peekable();
    let is_object = text.starts_with('{');
    let mut at_key = is_object;
    while let Some(Token(word, token)) = inner.next() {
        let is_key = std::mem::replace(&mut at_key, is_object && word == ",");
        match token {
            Tok::Var if is_key && inner.peek().is_some_and(|next| next.0 == ":") => {
                let comma = Token(",", Tok::Sym);
                let name = word.get(1..).unwrap_or(word);
                changed.extend([Token(word, Tok::Var), comma, Token(name, Tok::Word)]);
            }
            Tok::Block(keys) if is_key => changed.push(Token(word, Tok::Block(term(keys)))),
            Tok::Str(parts) => {
                changed.push(Token(word, Tok::Str(parts.into_iter().map(part).collect())))
            }
            token => changed.push(pattern(Token(word, token))),
        }
    }
    Token(text, Tok::Block(changed))
}

/// Rewrites `p ?// q` to `[$?//, p, q]`, a pattern that no user can write.
fn alternative(mut patterns: Tokens<'_>) -> Option<Token<&str>> {
    if patterns.len() < 2 {
        return patterns.pop();
    }
    let mut list = vec![Token(ALTERNATIVES, Tok::Var)];
    for pattern in patterns {
        list.extend([Token(",", Tok::Sym), pattern]);
    }
    list.push(Token("]", Tok::Sym));
    Some(Token("[", Tok::Block(list)))
}
