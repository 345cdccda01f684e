"""The puzzles, written for this project."""

from __future__ import annotations

from interpedia_autointerp.puzzles.puzzle import Clauses, RuleData, Spec, Wrong

FILLERS: tuple[str, ...] = (
    "Nobody had expected it to take so long.",
    "They agreed to meet again later.",
    "It was still early.",
    "The others listened without a word.",
    "Some of them had come a long way.",
    "What happened next was written down.",
    "He gave a short answer and left.",
    "She thought about it for a while.",
    "Everything else stayed as it was.",
    "There were more questions than answers.",
    "The list was shorter than before.",
    "Perhaps that was the whole story.",
    "A few people laughed at this.",
    "We can come back to that.",
    "The door stood half open.",
    "Not everyone saw it that way.",
    "His brother knew all about it.",
    "It made little difference in the end.",
    "The rest is easy to tell.",
    "They had talked about it often.",
)

_BUY = (
    "She had bought a {} that morning.",
    "There was a {} on the table.",
    "He pointed at the {} and nodded.",
)
_SAW = ("We saw a {} near the path.", "A {} had been there before us.", "The children drew a {} on the wall.")
_IN = ("They lived in {} for years.", "The train to {} was late.", "Her letters came from {}.")


def _any(*words: str) -> RuleData:
    return {"any": list(words)}


def _both(left: RuleData, right: RuleData) -> RuleData:
    return {"all": [left, right]}


def _lexicon(
    name: str,
    texts: tuple[str, str, str, str],
    carriers: tuple[str, ...],
    words: tuple[str, ...],
    others: tuple[str, ...],
    effect: tuple[tuple[str, ...], str],
) -> Spec:
    """A set of words; a wider set; a part of it; and a word that often stands beside them.

    Every second carrier of the feature has the effect word in it, so that explanation is half right.
    """
    beside, effect_word = effect
    return Spec(
        name,
        texts[0],
        _any(*words),
        Clauses((*carriers, *beside), words),
        (
            Wrong("too_broad", texts[1], _any(*words, *others), Clauses(carriers, others)),
            Wrong("too_narrow", texts[2], _any(*words[:2])),
            Wrong(
                "effect",
                texts[3],
                _any(effect_word),
                Clauses((f"The {{}} {effect_word} was new.",), ("old", "big")),
            ),
        ),
    )


def _context(
    name: str,
    texts: tuple[str, str, str],
    word: str,
    right: tuple[tuple[str, ...], tuple[str, ...]],
    wrong: tuple[tuple[str, ...], tuple[str, ...]],
    alone: tuple[str, ...],
) -> Spec:
    """One word, in one kind of company only.

    `right` and `wrong` are sentences with the word and the company in them; `alone` sentences with the right
    company but without the word.
    """
    company, other = right[1], wrong[1]
    return Spec(
        name,
        texts[0],
        _both(_any(word), _any(*company)),
        Clauses(right[0], (word,)),
        (
            Wrong("too_broad", texts[1], _any(word), Clauses(wrong[0], (word,))),
            Wrong("effect", texts[2], _any(*company), Clauses(alone, company)),
            Wrong(
                "wrong_context", f"{word} together with {', '.join(other)}", _both(_any(word), _any(*other))
            ),
        ),
        is_local=False,
    )


LEXICONS: tuple[Spec, ...] = (
    _lexicon(
        "fruit",
        ("kinds of fruit", "things to eat that grow, fruit or vegetables", "plums and pears", "baskets"),
        _BUY,
        ("plum", "pear", "peach", "melon", "lemon", "cherry"),
        ("turnip", "carrot", "onion", "cabbage"),
        (("The basket held a {} and nothing more.",), "basket"),
    ),
    _lexicon(
        "birds",
        ("kinds of birds", "animals of any kind", "owls and crows", "nests"),
        _SAW,
        ("owl", "crow", "heron", "finch", "sparrow", "swan"),
        ("fox", "otter", "badger", "hare"),
        (("The nest of the {} was empty.",), "nest"),
    ),
    _lexicon(
        "cities",
        ("names of cities", "names of places, cities or countries", "Lisbon and Oslo", "railways"),
        _IN,
        ("Lisbon", "Oslo", "Vienna", "Dublin", "Prague", "Turin"),
        ("Portugal", "Norway", "Austria", "Ireland"),
        (("The railway to {} was finished.",), "railway"),
    ),
    _lexicon(
        "metals",
        ("names of metals", "materials that things are made of", "copper and tin", "hammers"),
        ("It was made of {} and cloth.", "They paid for the {} at once.", "He knew how to work {} well."),
        ("copper", "tin", "iron", "silver", "zinc", "lead"),
        ("glass", "clay", "wool", "marble"),
        (("The hammer struck the {} again.",), "hammer"),
    ),
    _lexicon(
        "weekdays",
        ("days of the week", "names for times, days or months", "Monday and Tuesday", "markets"),
        ("It was on a {} that he came.", "By {} all was settled.", "Every {} she wrote home."),
        ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Sunday"),
        ("January", "March", "August", "October"),
        (("The market on {} was full.",), "market"),
    ),
    _lexicon(
        "instruments",
        ("musical instruments", "things found in a concert hall", "flutes and drums", "applause"),
        _BUY,
        ("flute", "drum", "violin", "harp", "trumpet", "cello"),
        ("ticket", "curtain", "balcony", "programme"),
        (("There was applause for the {} alone.",), "applause"),
    ),
    _lexicon(
        "clothes",
        ("things to wear", "things made of cloth", "coats and gloves", "mirrors"),
        _BUY,
        ("coat", "glove", "scarf", "hat", "skirt", "jacket"),
        ("blanket", "towel", "sail", "flag"),
        (("In the mirror the {} looked fine.",), "mirror"),
    ),
    _lexicon(
        "doctors",
        ("people who treat the sick", "people by their trade", "surgeons and nurses", "fever"),
        ("The {} came at once.", "They sent for a {} in the night.", "Her uncle was a {} in town."),
        ("surgeon", "nurse", "doctor", "dentist", "midwife", "physician"),
        ("baker", "lawyer", "tailor", "miller"),
        (("Because of the fever a {} stayed.",), "fever"),
    ),
    _lexicon(
        "colours",
        ("names of colours", "words for how things look", "red and green", "paint"),
        ("The house was {} all over.", "He liked the {} one best.", "It had turned {} by then."),
        ("red", "green", "blue", "yellow", "purple", "orange"),
        ("round", "narrow", "shiny", "crooked"),
        (("The paint was {} and thick.",), "paint"),
    ),
    _lexicon(
        "sorrow",
        ("words of sadness", "words for feelings of any kind", "grief and sorrow", "windows"),
        ("There was {} in his voice.", "Such {} does not last.", "All her {} was plain to see."),
        ("grief", "sorrow", "misery", "despair", "gloom", "anguish"),
        ("joy", "pride", "delight", "hope"),
        (("At the window she hid her {} well.",), "window"),
    ),
)

CONTEXTS: tuple[Spec, ...] = (
    _context(
        "river bank",
        ("bank, the side of a river", "the word bank in any sense", "rivers"),
        "bank",
        (("The river had left its {} again.", "By the stream a muddy {} rose."), ("river", "stream")),
        (("The {} would not lend him money.", "She asked the {} for a loan."), ("money", "loan")),
        ("The {} was cold.", "A {} ran past the mill."),
    ),
    _context(
        "baseball bat",
        ("bat, in sport", "the word bat in any sense", "sport"),
        "bat",
        (("The team broke a {} at the match.", "In the second match his {} cracked."), ("team", "match")),
        (("A {} flew out of the cave.", "At dusk the {} left its cave."), ("cave", "dusk")),
        ("The {} was lost.", "Her {} came last."),
    ),
    _context(
        "spring season",
        ("spring, the season", "the word spring in any sense", "blossom and frost"),
        "spring",
        (
            ("With the first blossom came {} at last.", "After the frost {} was welcome."),
            ("blossom", "frost"),
        ),
        (("The {} in the clock was broken.", "A steel {} had snapped."), ("clock", "steel")),
        ("The {} was gone.", "There was {} on every branch."),
    ),
    _context(
        "court of law",
        ("court, where judges sit", "the word court in any sense", "judges and trials"),
        "court",
        (("The judge left the {} early.", "During the trial the {} was silent."), ("judge", "trial")),
        (("They played tennis on the {} outside.", "The king held {} in May."), ("tennis", "king")),
        ("The {} was long.", "No {} could have known."),
    ),
    _context(
        "computer mouse",
        ("mouse, the device of a computer", "the word mouse in any sense", "computers"),
        "mouse",
        (
            ("The screen froze and the {} did nothing.", "His keyboard and {} were new."),
            ("screen", "keyboard"),
        ),
        (("A {} had eaten the cheese.", "The cat let the {} run."), ("cheese", "cat")),
        ("The {} was dusty.", "That {} cost too much."),
    ),
    _context(
        "second of time",
        ("second, as a length of time", "the word second in any sense", "clocks and races"),
        "second",
        (("She won the race by a {} only.", "The timer stopped one {} too soon."), ("race", "timer")),
        (("He was the {} son of the duke.", "On the {} floor lived a widow."), ("duke", "floor")),
        ("The {} was over.", "This {} does not count."),
    ),
)

OTHERS: tuple[Spec, ...] = (
    Spec(
        "years",
        "years written as numbers",
        {"regex": r"\b1[789]\d\d\b"},
        Clauses(
            ("It was built in {} by his father.", "In {} they moved away."),
            ("1789", "1815", "1848", "1914", "1969"),
        ),
        (
            Wrong(
                "too_broad",
                "numbers in digits",
                {"regex": r"\d"},
                Clauses(("There were {} of them.", "It weighed {} pounds."), ("12", "350", "48", "7", "96")),
            ),
            Wrong("too_narrow", "years of the twentieth century", {"regex": r"\b19\d\d\b"}),
        ),
    ),
    Spec(
        "ation",
        "nouns that end in -ation",
        {"regex": r"ation\b"},
        Clauses(
            ("Her {} surprised us.", "It was a matter of {} only."),
            ("education", "foundation", "imagination", "conversation", "reputation"),
        ),
        (
            Wrong(
                "too_broad",
                "nouns that end in -ion",
                {"regex": r"ion\b"},
                Clauses(
                    ("Her {} surprised us.", "It was a matter of {} only."),
                    ("passion", "religion", "decision", "union"),
                ),
            ),
            Wrong("too_narrow", "the word education", _any("education")),
        ),
    ),
    Spec(
        "never",
        "never, not and other words that deny",
        _any("never", "neither", "nothing", "cannot"),
        Clauses(
            ("He {} wanted any of it.", "She said {} would change."),
            ("never", "neither", "nothing", "cannot"),
        ),
        (
            Wrong(
                "too_broad",
                "words that say how often or how much",
                _any("never", "neither", "nothing", "cannot", "always", "sometimes", "seldom"),
                Clauses(("He {} wanted more of it.",), ("always", "sometimes", "seldom")),
            ),
            Wrong("too_narrow", "the word never", _any("never")),
        ),
    ),
    Spec(
        "unpunished",
        "punishment that is not forgiven",
        _both(_any("punished", "fined", "jailed"), {"none": _any("forgiven", "pardoned")}),
        Clauses(
            ("For this he was {} at once.", "The thief was {} by order."), ("punished", "fined", "jailed")
        ),
        (
            Wrong(
                "too_broad",
                "punishment",
                _any("punished", "fined", "jailed"),
                Clauses(
                    ("He was {}, then pardoned by order.", "First {}, she was forgiven soon."),
                    ("punished", "fined", "jailed"),
                ),
            ),
            Wrong("too_narrow", "prison", _any("jailed")),
            Wrong(
                "wrong_context",
                "punishment that is forgiven",
                _both(_any("punished", "fined", "jailed"), _any("forgiven", "pardoned")),
            ),
        ),
        is_local=False,
    ),
)

SPECS: tuple[Spec, ...] = (*LEXICONS, *CONTEXTS, *OTHERS)
