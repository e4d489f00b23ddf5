"""What the relay promises, and which tests prove it, made from the marks on the tests."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from measured import table

__all__ = ["CATALOGUE", "PROMISES", "promises_block", "proofs", "readme_block"]

ROOT = Path(__file__).resolve().parents[1]
GROUPS = {
    "A": "Keys and rights",
    "L": "Limits, budgets, repeats",
    "H": "Hostile input",
    "U": "Broken upstreams",
    "F": "Faults, retries, recovery",
    "X": "Load",
    "C": "Stopping and crashing",
    "S": "Storage",
    "D": "Browsers",
    "P": "Plugins",
    "M": "Several processes",
    "K": "What real clients need",
}
CATALOGUE: Mapping[str, str] = {
    "A-01": "text that would be SQL, sent as a key to any route, is an unknown key and changes nothing",
    "A-02": "a key never reaches a statement in clear",
    "A-03": "nobody else can reach a relay that has no key yet",
    "A-04": "what stands for a key and is none is refused by name; mistakes are told without the values",
    "A-05": "neither keys nor prompts turn up in logs, errors, rows, files or the process list",
    "A-06": "an upstream that echoes its key in an error is masked",
    "A-07": "tricks with hosts, paths and forwarding headers open no route",
    "A-08": "a body that names two models is refused; the one that was authorised is the one that is asked",
    "A-09": "names that only look like an allowed one are not allowed, and no fall-back leaves the list",
    "A-10": "a key has the same rights in every header, and two different keys are refused",
    "A-11": "what a key may not use is refused on every route, before anything is sent",
    "A-12": "the routes that need no key are exactly those that the pages name",
    "A-13": "what belongs to another key does not exist",
    "A-14": "a revoked key is refused within a second, in every process; what was let in goes on, what waits does not",
    "A-15": "whatever stands in a key's header, the answer is a clear refusal",
    "A-16": "keys are found by digest, so timing tells nothing of them",
    "A-17": "who guesses keys is made to wait, and nobody else is",
    "A-18": "nothing of the caller's but what is listed reaches an upstream, its key least of all",
    "L-01": "every limit fires, on every kind of call",
    "L-02": "calls at once cannot exceed a budget, not by one",
    "L-03": "whatever happens in whatever order, what is spent and what is held stay within the budget",
    "L-04": "changing a key while it spends loses no cent",
    "L-05": "windows roll over once, and clocks that jump neither refill nor starve",
    "L-06": "a place is given back however a call ends",
    "L-07": "a slow disk holds no place",
    "L-08": "absurd maxima are refused with their name, and held amounts are exact",
    "L-09": "no window admits more than burst and rate allow; the wait that is told is exact",
    "L-10": "reservations are corrected by what was used, with a debt of one bucket at most",
    "L-11": "who waits for a place waits in turn with other keys, within bounds, and leaves no trace when it leaves",
    "L-12": "only whole answers are given again, to the same question of the same key, and cost nothing",
    "L-13": "of many who ask the same at a time one is asked, and nobody fails because that one leaves",
    "L-14": "strangers cannot fill the limiter's memory",
    "L-15": "without any one of the guards a test fails",
    "L-16": "a model without a known price follows the stated rule",
    "L-17": "a repeated request with its name is carried out once",
    "H-01": "without a key the body is not read, and nobody is asked to send it",
    "H-02": "no spelling of a request smuggles a second one, not behind a proxy either",
    "H-03": "a parser that is not fit for strangers is not served with",
    "H-04": "heads and bodies that drip are let go",
    "H-05": "compressed bodies are refused instead of unpacked",
    "H-06": "what is no JSON, or too deep, is a clear 400; what is odd is answered or refused, and holds nobody up",
    "H-07": "what is made up from the schema of the routes gets no 5xx, and its refusals are in the dialect's envelope",
    "H-08": "every refusal is JSON in the envelope, and echoes nothing",
    "H-09": "tools and arguments are checked within bounds of time, memory and stack; a fault is named by its path",
    "H-10": "nothing in a request chooses where the relay connects, or with which key",
    "H-11": "and that on every route",
    "H-12": "upstream connections lead to no address that nobody configured",
    "H-13": "nothing is fetched, opened or decoded for pictures and documents; only the body bounds them",
    "H-14": "a model's name never leads a request out of its upstream's configured path",
    "H-15": "odd names and ids grow nothing and reach no log line raw",
    "H-16": "what the relay has read and allowed is what arrives; what could be read in two ways is refused",
    "H-17": "requests that come together are answered in their order",
    "H-18": "no parser raises what it has not declared, whatever it is given",
    "U-01": "a cut stream ends with an error event and never looks finished",
    "U-02": "a stalled stream ends with an error in time",
    "U-03": "an error before the first output is a real status; after it, it is told once, and nothing follows it",
    "U-04": "the end of an answer is its own last event, neither less nor more",
    "U-05": "every framing and every cut of the bytes gives the same answer",
    "U-06": "long events arrive whole, and one without an end ends the answer within a bound of memory",
    "U-07": "nonsense inside of an answer says nothing or ends it with an error event, never in Python's words",
    "U-08": "an answer that is packed all the same is unpacked within bounds, and one that is cut is no answer",
    "U-09": "counts that an upstream reports are bounded and credit nobody",
    "U-10": "odd statuses and types of content are a clear error",
    "U-11": "odd heads are a clear error, never a bare disconnect",
    "U-12": "silence is filled, between events only",
    "U-13": "redirects are not followed",
    "U-14": "no cookie of an upstream's reaches a client, or an upstream again",
    "U-15": "what comes behind an answer reaches nobody",
    "U-16": "error pages become short errors",
    "U-17": "however small or many the pieces are, work and writes are in proportion to what came",
    "U-18": "names that cannot be resolved and certificates that are not good are clear errors",
    "F-01": "an upstream learns at once that its caller has gone, even before the first token",
    "F-02": "and also in the middle of an answer, and where the caller reads slowly",
    "F-03": "whoever leaves before the count is counted all the same",
    "F-04": "a kept connection that was just closed costs no call, and repeats none",
    "F-05": "what may have been carried out is not asked again",
    "F-06": "what the caller did wrong is asked once",
    "F-07": "what was refused is tried again within bounds, never after the first byte",
    "F-08": "retries stay within their budget when everything is down",
    "F-09": "every form of Retry-After is understood",
    "F-10": "when all targets rest, the answer is immediate and names the soonest time",
    "F-11": "after a rest one call tries, and all others wait for its result",
    "F-12": "a target that has just been set aside is not asked again in the same call",
    "F-13": "addresses that swallow connections cost no more than their time",
    "F-14": "hundreds of streams wait for no connection",
    "F-15": "no total time cuts a stream that lives",
    "F-16": "a relay out of descriptors recovers, and does not fill its log",
    "F-17": "a log that nobody reads holds nobody up",
    "F-18": "a bad configuration never replaces a good one",
    "F-19": "above its mark of memory a relay lets nobody new in, serves who is inside, and recovers",
    "X-01": "an open stream takes two descriptors and less than 40 KB, however many there are",
    "X-03": "what is more than a model may have is refused at once, and what is let in is served",
    "X-04": "mixed calls for as long as one likes: memory, descriptors and tasks do not grow, each call has its row",
    "X-05": "clients that do not read cost bounded memory and are let go",
    "X-06": "one who takes everything is not served before the others",
    "X-07": "nothing of the relay's waits or computes for long on the event loop while calls are served",
    "C-01": "a stop lets open answers finish and records them",
    "C-02": "what cannot finish in time is told so in its own dialect",
    "C-03": "neither clients nor upstreams can hold a stop up",
    "C-04": "a second signal is quick; a reload touches nothing open",
    "C-05": "after kill -9 each call has its row, once",
    "C-06": "a call that was over and not stored is found at the next start",
    "C-07": "what goes on beside the calls begins again when it fails, is counted and told, and calls go on",
    "C-08": "a start that cannot be is one clear line",
    "C-09": "a worker that dies is replaced",
    "S-01": "a locked database holds up nothing and loses nothing",
    "S-02": "long readers do not make the log grow without end",
    "S-03": "a full disk stops rows, not calls, and recovers",
    "S-04": "rows that cannot be stored wait within bounds and are counted",
    "S-05": "a cancelled request leaves no open transaction",
    "S-06": "schemas go forward, are resumed, and newer ones are refused",
    "S-07": "damaged files are refused untouched; copies are whole",
    "S-08": "files are their owner's alone, and links are not followed",
    "S-09": "whatever is asked of the stored rows and lists, it is no more than a word, and bounded",
    "S-10": "what is forgotten is gone from the file",
    "S-11": "a slow disk does not slow calls",
    "S-12": "a clock that goes back changes neither the order of rows nor their sums",
    "S-13": "what is kept for the next turn opens for its key alone, goes with it, and the file tells nothing",
    "D-02": "a page that pretends to be this machine gets nothing",
    "D-03": "no answer is a page: it is shown alone, runs nothing, tells no address and is kept nowhere",
    "D-04": "pages of others cannot use the relay",
    "D-07": "exported cells run nothing",
    "P-01": "nothing is loaded that was not installed or named, nor what is not listed where there is a list",
    "P-02": "a broken plugin is named and takes its own models with it",
    "P-03": "what a plugin raises or returns wrongly names it, and no one else's call fails",
    "P-04": "a broken reader costs numbers where bytes pass, and its own stream elsewhere; who holds all up is named",
    "P-05": "a coroutine where a function belongs is told at start",
    "P-06": "a plugin gets its own settings only",
    "P-07": "what a plugin counts is bounded and credits nobody",
    "P-08": "every family passes one suite, which is there for those of others, too, and notices what it should",
    "P-09": "two plugins for one thing are a contradiction that stops the start",
    "P-10": "what is published holds what is listed, and the same source gives the same bytes",
    "P-11": "every dependency has a reason, a version and a hash",
    "P-12": "it is the same without asserts, and with every check that Python has",
    "M-02": "several processes do not multiply limits without a word",
    "M-06": "every process sees a revoked key within a second",
    "M-08": "several processes share one file",
    "M-09": "what one process keeps for the next turn the others find, also when it was killed",
    "K-01": "the list of models is asked for on one path in three dialects, told apart by headers",
    "K-02": "the Gemini API lives under `/v1` and `/v1beta`, with all its verbs",
    "K-03": "the key may come as Bearer, `x-api-key` or `x-goog-api-key`, on every route",
    "K-04": "every `anthropic-version` is taken and passed on; system messages stand anywhere; errors have their code",
    "K-05": "paths without `/v1` lead to the same routes, and Messages are found with and without it",
    "K-06": "`?beta=true` changes nothing",
    "K-07": "a WebSocket for Responses is refused with 426, after which Codex uses HTTP at once",
    "K-08": "Responses are served on every family",
    "K-09": "thirty counts of tokens at once are answered at once, outside of all limits",
    "K-10": "all that Claude Code sends is taken, on its own vendor unchanged and on every other",
    "K-11": "unknown fields, betas and tools pass to their own vendor; elsewhere they are mapped, or told as lost",
    "K-12": "every spelling of Responses that clients use is read",
    "K-13": "every spelling of Chat Completions that clients use is read, limits of output among them",
    "K-14": "the Gemini API is read in camelCase and snake_case, with both places for schemas",
    "K-15": "vectors come in base64 for those who ask for it",
    "K-16": "reasoning comes back to its vendor byte for byte, in all four formats",
    "K-17": "a schema for the answer reaches every family from every dialect",
    "K-18": "of clients' headers only an allow-list reaches an upstream",
    "K-19": "bodies of many megabytes are taken",
    "K-20": "silence is filled as each kind of client takes it, and for Gemini's not at all",
    "K-21": "any line end and any cut of an upstream's stream reads the same",
    "K-22": "streams are counted whether clients ask for it or not, and shown only to those who ask",
    "K-23": "an error in a stream is what this kind of client raises, under one id, once",
    "K-24": "a connection that breaks is an error event, and never a mere cut",
    "K-25": "errors are in the form of the client's dialect",
    "K-26": "what is refused is refused before anything is sent, however often it is tried",
    "K-27": "whoever has to wait is told how long",
    "K-28": "where trying again cannot help, `x-should-retry: false` says so: 401, 402, 403",
    "K-29": "titles and summaries that clients ask for in the background count like any other call",
}
"""What each entry of the catalogue promises. The letters are those of the catalogue that the tests follow."""

PROMISES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("A cut stream never looks finished: it ends with an error in the client's own dialect", ("U-01", "U-02", "U-04")),
    ("When a client leaves, its upstream learns it at once, even before the first token", ("F-01", "F-02")),
    (
        "Nothing is asked again that may have been carried out, and nothing after the first byte",
        ("F-04", "F-05", "F-06", "F-07", "F-08"),
    ),
    ("Every call leaves exactly one row, however it ends, `kill -9` included", ("F-03", "C-05", "C-06")),
    ("Calls at once cannot exceed a budget, not by one", ("L-02", "L-03", "L-06")),
    ("The model that was authorised is the model that is asked", ("A-08", "A-09", "A-11")),
    (
        "A client's key never reaches an upstream, and an upstream's never a client, a log or the database",
        ("A-02", "A-05", "A-06", "A-18"),
    ),
    ("Clients cannot choose where the relay connects; redirects are not followed", ("H-10", "H-12", "U-13")),
    (
        "Nothing is open by default: this machine alone, a key for everything, no pages of others",
        ("A-03", "D-02", "D-04"),
    ),
    ("Bad input is a clear error in JSON that echoes nothing", ("H-02", "H-06", "H-08")),
    ("What an upstream reports is bounded, and can credit nobody", ("U-09",)),
    ("An answer is given again only if it is whole, only where that was switched on, and to nobody else", ("L-12",)),
    ("A stop finishes what is open, tells the rest, and is over in time", ("C-01", "C-02", "C-03")),
    ("A database that is locked, full or slow does not stop a call", ("S-01", "S-03", "S-04", "S-11")),
    ("Limits are right across clocks that jump, and the wait that is told is exact", ("L-05", "L-09", "F-09", "F-10")),
    ("What is kept of conversations is sealed: only the key that it belongs to opens it", ("A-13", "S-13")),
    ("A broken plugin breaks its own models only, and nothing is loaded that was not named", ("P-01", "P-02", "P-03")),
    ("One process is one limit; several say what they are", ("M-02",)),
)
"""What the README says, and the entries that prove it."""


def proofs() -> dict[str, list[tuple[str, str]]]:
    """The tests by the entries of the catalogue that they are marked with: file and function."""
    found: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for file in sorted((ROOT / "tests").rglob("test_*.py")):
        text = file.read_text(encoding="utf-8")
        if "promise(" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                for name in marks(node.decorator_list):
                    found[name].append((str(file.relative_to(ROOT)), node.name))
            elif isinstance(node, ast.Assign):
                # What a library makes a test of has no function to be marked.
                for name in marks([call for call in ast.walk(node.value) if isinstance(call, ast.Call)]):
                    found[name].append((str(file.relative_to(ROOT)), ast.unparse(node.targets[0])))
    return found


def marks(found: Iterable[ast.expr]) -> Iterator[str]:
    """The entries that these marks name."""
    for mark in found:
        if isinstance(mark, ast.Call) and isinstance(mark.func, ast.Attribute) and mark.func.attr == "promise":
            for argument in mark.args:
                if isinstance(argument, ast.Constant):
                    yield str(argument.value)


def told(name: str) -> str:
    """A test's name as a sentence."""
    return name.removeprefix("test_").replace("_", " ")


def promises_block() -> str:
    """Every entry that is proved, with its tests."""
    found = proofs()
    parts = []
    for letter, title in GROUPS.items():
        rows = [
            (
                name,
                text,
                "<br>".join(f"[{told(test)}](../{file})" for file, test in found[name]),
            )
            for name, text in CATALOGUE.items()
            if name.startswith(f"{letter}-")
        ]
        if rows:
            parts.append(f"### {title}\n\n" + table(("", "Promise", "Proved by"), rows))
    return "\n\n".join(parts)


def place(name: str) -> str:
    """The heading under which an entry stands, as an address."""
    return GROUPS[name[0]].lower().replace(",", "").replace(" ", "-")


def readme_block() -> str:
    """The promises, each with links to what proves it."""
    return "\n".join(
        f"* {text} ({', '.join(f'[{name}](docs/promises.md#{place(name)})' for name in names)})."
        for text, names in PROMISES
    )
