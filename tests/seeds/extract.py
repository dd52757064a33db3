#!/usr/bin/env python3
"""Prints the public names of a Go package, one a line and sorted, from the text of its documentation page.

    extract.py DOCUMENT > NAMES

What counts as a name:

    Hub, NewHub, ErrRoomFull     types, functions, constants, variables
    Hub.JoinRoom, Config.WriteWait   methods (of interfaces too) and fields
    "subscribed"                 strings that are constants, messages of errors, or wire types that the text tells
    cmd/loadtest                 packages and commands inside the module

Such pages lose much when they become text: headings without signatures, blocks on one line, methods that only the
prose or an example mentions. So every form in which a name appears is read, and the results are united.
"""

import re
import sys

NAME = r"[A-Z]\w*"


def blocks(text, opening):
    """The insides of `const (…)`, `type X struct {…}` and their like, on one line or several.

    A block ends with a closing bracket at the end of its own line: comments inside have brackets too.
    """
    for match in re.finditer(opening, text, re.M):
        rest = text[match.end():]
        first = rest.split("\n", 1)[0]
        if first.strip() and re.search(r"[)}]$", first):
            yield match, first[:-1]
        elif not first.strip():
            yield match, re.split(r"^[)}]$", rest, maxsplit=1, flags=re.M)[0]


def declared_types(text):
    """`type X`, in the index and as headings."""
    return set(re.findall(rf"^(?:- )?type ({NAME})", text, re.M))


def signature_types(text):
    """Types that a function takes and nothing declares: written without a package, so they are the package's own."""
    found = set()
    for signature in re.findall(rf"^(?:- )?func {NAME}(\(.*?)(?:deprecated)?$", text, re.M):
        found.update(re.findall(rf"(?<![\w.])({NAME})\b", signature))
    return found


def functions(text):
    """`func X`, `func (*T) X` and `func (t T) X`, in the index, as headings and as signatures."""
    found = set()
    for receiver, name in re.findall(rf"^(?:- )?func (?:\((?:\w+ )?\*?({NAME})\) )?({NAME})", text, re.M):
        found.add(f"{receiver}.{name}" if receiver else name)
    return found


def members(text):
    """Fields of structs, methods of interfaces."""
    found = set()
    for match, inside in blocks(text, rf"^type ({NAME}) (?:struct|interface) ?\{{"):
        for line in inside.splitlines():
            names = re.match(rf"\s*({NAME}(?:, {NAME})*)(?:\(| +\S)", line)
            if names:
                found.update(f"{match[1]}.{name}" for name in names[1].split(", "))
    return found


def implemented(text, names):
    """Methods that `It implements the X interface` promises."""
    found = set()
    for section in re.split(rf"^(?=type {NAME} ¶)", text, flags=re.M):
        owner = re.match(rf"type ({NAME}) ¶", section)
        for interface in re.findall(rf"implements the ({NAME}) interface", section):
            # The sentence that describes the interface itself speaks of others.
            if owner and owner[1] != interface:
                found.update(f"{owner[1]}.{n.split('.')[1]}" for n in names if n.startswith(f"{interface}."))
    return found


def constants(text, types):
    """Constants and variables, with the values of those that are strings or errors."""
    found = set(re.findall(rf"^var ({NAME}) =", text, re.M))
    for _, inside in blocks(text, r"^(?:const|var) \("):
        # `Name =` or `Name Type =`; the word before a name may also be the last one of a comment.
        for first, second in re.findall(rf"\b({NAME})(?: ({NAME}))?\s*= ", inside):
            found.add(first if not second or second in types else second)
        # Constants that count up: all but the first stand alone, behind comments that begin with their names.
        if "= iota" in inside:
            described = re.findall(rf"// ({NAME}) ", inside)
            found.update(n for n in described if re.search(rf"\b{n}\s*(?://|$|{NAME} = iota)", inside))
        found.update(re.findall(rf'\b{NAME}\s*= (?:errors\.New\()?("[^"]+")', inside))
    return found


def variables(text, types):
    """Which variable of the prose and the examples is of which type; those that have several types are left out."""
    kinds = {}
    for name, kind in re.findall(rf"\b(\w+) \*(?:\w+\.)?({NAME})", text):
        kinds.setdefault(name, set()).add(kind)
    # A constructor stands below its type.
    owner, makes = None, {}
    for kind, function in re.findall(rf"^(?:type ({NAME})|func (New\w*))\b", text, re.M):
        owner = kind or owner
        if function:
            makes[function] = owner
    for name, function in re.findall(r"\b(\w+)(?:, \w+)? := (?:\w+\.)?(New\w*)\(", text):
        kinds.setdefault(name, set()).add(makes.get(function))
    return {name: next(iter(kind)) for name, kind in kinds.items() if len(kind) == 1 and kind <= types}


def mentioned(text, types):
    """What only the prose or an example has: `T.X`, `t.X` of a known variable, and constructors."""
    found = {f"{kind}.{name}" for kind, name in re.findall(rf"(?<![\w.])({NAME})\.({NAME})\b", text) if kind in types}
    for variable, kind in variables(text, types).items():
        uses = re.findall(rf"(?<![\w.]){variable}\.({NAME})\b", text)
        found.update(f"{kind}.{name}" for name in uses)
    found.update(re.findall(rf"(?<![\w.])(New{NAME})\b", text))
    return found


def wire_strings(text):
    """Message types in the text: `- "join": {…}`, `The "root" room`, `the default a/b/c message protocol`."""
    found = set(re.findall(r'^- ("\w+"): \{|[.:] - ("\w+"): \{', text, re.M))
    found = {name for pair in found for name in pair if name}
    found.update(re.findall(r'The ("\w+") room', text))
    # The lists of the prose have lost their line ends.
    for listing in re.findall(r"Built-in client→server events:(.*)", text):
        found.update(re.findall(r'- ("\w+"):', listing))
    for chain in re.findall(r"default (\w+(?:/\w+)+) message protocol", text):
        found.update(f'"{name}"' for name in chain.split("/"))
    return found


def packages(text):
    """The table of directories, and packages of the module that the prose names."""
    found, folder, previous = set(), "", ""
    for line in text.partition("\nDirectories\n")[2].splitlines():
        word = line.strip()
        if word in ("module", "command"):
            found.add(f"{folder}/{previous}")
        elif word == "|" and re.fullmatch(r"[a-z]\w*", previous) and previous not in ("module", "command"):
            folder = previous
        previous = word
    module = re.search(r'^"(github\.com/[^"]+)"$', text, re.M)
    if module:
        found.update(re.findall(rf"{re.escape(module[1])}/([\w/]+)", text))
    return found


def names_of(text):
    types = declared_types(text) | signature_types(text)
    found = types | functions(text) | members(text)
    found |= implemented(text, found)
    return found | constants(text, types) | mentioned(text, types) | wire_strings(text) | packages(text)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    with open(sys.argv[1], encoding="utf-8") as document:
        print("\n".join(sorted(names_of(document.read()))))


if __name__ == "__main__":
    main()
