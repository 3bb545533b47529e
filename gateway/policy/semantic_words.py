"""Words that change or keep what an English question asks for: what guards and verifier know of the language. Pure."""

from __future__ import annotations


def split(words: str) -> frozenset[str]:
    """A set from a line."""
    return frozenset(words.split())


# Words that most rewordings add, drop or exchange without asking for something else.
PLAIN = split(
    "a an the is are was were be been being am do does did can could would will shall should may might of to in on at "
    "for from by with about as into it its this that these those i you he she we they me my your our their his him us "
    "them please tell show give list want need know like some any there here what which who whom whose where when why "
    "how and or so if then just also get got have has had i'm i'd i've i'll it's what's there's s m d re ve ll t hi "
    "hello hey thanks thank kindly display find let"
)
NEGATIONS = split(
    "no not never without none nobody nothing neither nor cannot unable except exclude excluding excluded besides "
    "minus non cant dont doesnt didnt wont isnt arent wasnt werent shouldnt wouldnt couldnt havent hasnt hadnt"
)
QUESTIONS = {
    **{word: word for word in ("what", "where", "when", "why", "how")},
    **{"which": "what", "who": "who", "whom": "who", "whose": "who", "many": "count", "much": "count"},
}
# What a word right behind one of these is to the question; the first four say a direction.
ROLES = {
    **dict.fromkeys(split("from leaving departing depart leave"), "source"),
    **dict.fromkeys(split("to into toward towards arriving arrive reach onto"), "goal"),
    **dict.fromkeys(split("before by until till under below beneath behind"), "less"),
    **dict.fromkeys(split("after since past above over beyond"), "more"),
    **{"than": "than", "via": "via", "through": "via", "in": "in", "at": "at", "for": "for", "of": "of"},
    **{"with": "with", "without": "without", "between": "between", "instead": "instead", "as": "as"},
}
DIRECTIONS = frozenset(("source", "goal", "less", "more", "than"))
OPPOSITE_ROLES = frozenset((("source", "goal"), ("goal", "source"), ("less", "more"), ("more", "less")))
_ANTONYMS = (
    "on/off enable/disable increase/decrease raise/lower raise/reduce increase/reduce start/stop start/end "
    "begin/end start/finish open/close open/shut add/remove add/delete create/delete create/destroy create/remove "
    "insert/delete buy/sell up/down before/after first/last earliest/latest early/late earlier/later "
    "cheapest/expensive cheap/expensive cheapest/priciest highest/lowest most/least more/less more/fewer "
    "largest/smallest biggest/smallest large/small big/small big/little longest/shortest long/short longer/shorter "
    "tallest/shortest tall/short max/min maximum/minimum maximize/minimize maximise/minimise arrive/depart "
    "arrive/leave arrival/departure arrival/depart come/go hot/cold warm/cool warmer/cooler high/low higher/lower "
    "lock/unlock inside/outside indoor/outdoor indoors/outdoors push/pull accept/reject accept/decline "
    "approve/reject approve/deny allow/deny allow/forbid allow/block grant/revoke import/export upload/download "
    "male/female man/woman men/women boy/girl left/right east/west north/south eastern/western northern/southern "
    "morning/evening morning/afternoon morning/night day/night am/pm today/tomorrow today/yesterday "
    "tomorrow/yesterday past/future previous/next undergraduate/graduate undergrad/grad easy/hard easy/difficult "
    "easiest/hardest easier/harder light/heavy lightest/heaviest lighter/heavier light/dark bright/dim brighten/dim "
    "safe/dangerous safest/dangerous good/bad best/worst better/worse advantage/disadvantage pro/con "
    "positive/negative receive/send incoming/outgoing inbound/outbound deposit/withdraw deposit/withdrawal "
    "activate/deactivate subscribe/unsubscribe install/uninstall freeze/unfreeze weekday/weekend mute/unmute "
    "connect/disconnect attach/detach include/exclude including/excluding encrypt/decrypt encode/decode "
    "compress/decompress show/hide visible/hidden public/private internal/external input/output true/false yes/no "
    "win/lose won/lost pass/fail success/failure succeed/fail gain/loss profit/loss debit/credit lend/borrow "
    "borrow/return give/take ascend/descend ascending/descending rise/fall rising/falling above/below over/under "
    "front/back top/bottom upper/lower new/old newest/oldest newer/older young/old youngest/oldest younger/older "
    "fast/slow fastest/slowest faster/slower quick/slow full/empty near/far nearest/farthest closest/farthest "
    "closer/farther same/different always/never love/hate like/dislike happy/sad rich/poor strong/weak "
    "strongest/weakest thick/thin wide/narrow deep/shallow deepest/shallowest wet/dry clean/dirty loud/quiet "
    "louder/quieter required/optional mandatory/optional available/unavailable legal/illegal possible/impossible "
    "domestic/foreign domestic/international manual/automatic online/offline read/write sender/recipient "
    "buyer/seller employer/employee husband/wife mother/father brother/sister son/daughter king/queen "
    "majority/minority plus/minus add/subtract multiply/divide numerator/denominator horizontal/vertical row/column "
    "prefix/suffix even/odd local/remote temporary/permanent join/leave enter/exit entrance/exit sign/unsign "
    "login/logout hire/fire save/discard keep/discard keep/delete merge/split expand/collapse zoom/unzoom "
    "follow/unfollow block/unblock pause/resume pause/play play/stop wake/sleep sunrise/sunset breakfast/dinner "
    "lunch/dinner breakfast/lunch nonstop/connecting direct/connecting oneway/roundtrip one-way/round-trip "
    "refundable/nonrefundable wins/losses lost/found lose/find supply/demand cause/effect question/answer "
    "problem/solution most/fewest least/many highest/least densest/sparsest populous/sparse"
)
# Kinds of which a question names one: to name another, or none, is another question.
_EXCLUSIVE = {
    "day": "monday tuesday wednesday thursday friday saturday sunday weekday weekend weekdays weekends",
    "month": "january february march april june july august september october november december",
    "season": "spring summer fall autumn winter",
    "part of day": "morning noon afternoon evening night midnight am pm a.m p.m tonight dawn dusk",
    "near day": "today tomorrow yesterday",
    "colour": "red blue green white black yellow orange purple pink brown grey gray violet silver gold golden",
    "compass": "north south east west northern southern eastern western northeast northwest southeast southwest",
    "size": "small medium large tiny huge",
    "currency": "dollar dollars euro euros pound pounds yen usd eur gbp jpy chf cad aud franc francs rupee rupees",
    "unit": "celsius fahrenheit miles mile km kilometers kilometres inches inch feet foot meters metres pounds kg "
    "grams ounces liters litres gallons",
    "period": "hour hours minute minutes second seconds day days week weeks month months year years decade century "
    "hourly daily weekly monthly yearly annually annual",
    "extreme": "most least fewest best worst highest lowest largest smallest biggest longest shortest tallest "
    "earliest latest cheapest easiest hardest newest oldest fastest slowest nearest closest farthest maximum "
    "minimum max min",
    "statistic": "average mean median total sum maximum minimum variance",
    "sex": "male female men women boys girls man woman boy girl",
    "ordinal": "first last next previous final",
}
_TIGHT = frozenset(("day", "month", "season", "near day", "colour", "compass", "currency"))  # none is another, too

_SUFFIXES = ("ingly", "edly", "ings", "ing", "ies", "ied", "es", "ed", "ly", "s")


def stem(word: str) -> str:
    """The word without the endings of its inflections; enough to see that `departing` and `departs` are one."""
    if not word.isascii() or not word.isalpha():
        return word
    if word.endswith("'s"):
        word = word[:-2]
    for suffix in _SUFFIXES:
        if len(word) - len(suffix) >= 3 and word.endswith(suffix):
            word = word[: -len(suffix)] + ("y" if suffix in ("ies", "ied") else "")
            break
    if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "lsz":
        word = word[:-1]
    return word[:-1] if len(word) > 3 and word[-1] == "e" else word


def _paired(pairs: str) -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for pair in pairs.split():
        one, other = pair.split("/")
        found.setdefault(stem(one), set()).add(stem(other))
        found.setdefault(stem(other), set()).add(stem(one))
    return {word: frozenset(others) for word, others in found.items()}


def _members(kinds: dict[str, str]) -> dict[str, str]:
    return {word: kind for kind, members in kinds.items() for word in members.split()}


ANTONYMS = _paired(_ANTONYMS)
EXCLUSIVE = _members(_EXCLUSIVE)
TIGHT = _TIGHT
_UNDOING = ("un", "dis", "in", "im", "non", "de", "ir", "mis")


def undoes(one: str, other: str) -> bool:
    """Is one word the other with a prefix that turns its meaning (`lock`, `unlock`)?"""
    if len(one) > len(other):
        one, other = other, one
    return len(one) > 3 and other.endswith(one) and other[: -len(one)] in _UNDOING


_ONES = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
_ORDINALS = "second third fourth fifth sixth seventh eighth ninth tenth"
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
NUMBER_WORDS = {
    **{word: str(number) for number, word in enumerate(f"{_ONES} seventeen eighteen nineteen".split()) if number != 1},
    **{word: str(20 + 10 * number) for number, word in enumerate(_TENS.split())},
    **{"hundred": "100", "thousand": "1000", "million": "1000000", "dozen": "12", "half": "1/2", "twice": "2"},
    **{"single": "1", "double": "2", "triple": "3", "couple": "2", "pair": "2"},
    **{word: f"{number + 2}th" for number, word in enumerate(_ORDINALS.split())},
}
NUMBER_WORDS = {word: value for word, value in NUMBER_WORDS.items() if word not in ("single", "double", "half", "pair")}
