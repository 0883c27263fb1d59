"""Does its author plainly refuse what a text is about? "Stop showing me crypto", "别再给我推比特币了".

Phrases by rule, since reviews teach none of them. Who is called a refuser wrongly is shown less of what they love, so
in doubt a text refuses nothing: only a short text counts, only what its opening says in the author's own name, and
nothing that is mixed with praise, taken back, asked or told of others.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from penchant_pipelines.stance import holds_praise
from penchant_pipelines.text.keywords import trimmed
from penchant_pipelines.text.scripts import HAN

RATING = -0.85
"""What a refusal counts as: at the default neutral rating as much as the action NOT_INTERESTED."""
LONGEST = 25
"""Words, or pairs of Chinese characters, of the longest text that is looked at: what is longer tells more."""
REMARK = 4
"""Words of a clause that may stand before the one that refuses: "Crypto again, …"."""

# Names in capitals stand for the patterns of these names. What may come again and again is atomic, `(?>…)`, where one
# piece may be the beginning of another: to part a text in all ways there are takes longer than anybody lives.
_PIECES = {
    "VERY": "(?:(?:so|really|very|just|too|quite|absolutely|truly|totally|completely|utterly|honestly|simply|deeply"
    "|at all|particularly|even|getting|always|still|personally|officially|beyond|also|strongly) )*",
    # What is particular ("my back", "the referees"), a circumstance ("when it rains", "waiting for"), a bad one of a
    # kind ("soggy pizza") or a wrong ("seeing dogs suffer", "cheaters in chess") is no subject.
    "THING": r"(?!(?:to|when|how|if|what|why|who|where|being|having|losing|not|that (?=\w+ \w)|it (?:when|if|that)"
    r"|my|your|his|her|their|our|me|you|him|them|us|myself|yourself|people|any\w+|every\w+"
    r"|bad|burnt|cheap|fake|lazy|overcooked|overpriced|poor|slow|soggy|stale|ugly"
    r"|nothing|nobody|still|some\w*|(?:all )?the(?! (?:book|novel|film|movie|show|series|game|phone|app"
    r"|\w+ (?:ads|content|hype|posts|spam|talk|videos))\b))\b"
    r"|(?:seeing|hearing|watching) (?!about\b|this\b)(?:\w+ )?\w+s (?!again|all|everywhere|on|in|posts|videos|ads)\w"
    r"|.*\b(?:abuse|bullying|cheat\w*|corruption|cruelty|hackers|racis[mt]s?|sexism|violence)\b"
    r"|(?!(?:seeing|hearing|reading|getting|watching|boring)\b(?! (?:my|our|your|his|her|their)\b))\w+ing \w)",
    "STUFF": r"(?=.*\b(?:please|pls|already|\w+ (?:posts?|ads?|spam|content|videos))\b)",
    "WHOLLY": "(?:(?>真心|真的?是?|实在是?|完全|根本|一点[儿也都]*|丝毫|从来|向来|一直|已经|早就|早已|都|就|很|非常"
    "|特别|超级?|最|好|越来越|再也|并|挺|比较|表示))*",
    "AGAIN": "(?:再|总是?|老是?|一直|天天|整天|每天)*",
    "NO_MORE": "(?:别|不要|请勿|不用|不必|甭)",
    "AFTER": "(?!了?(?:的|假|劣|烂|坏|输|在|一个人|有人|你|您|他|她|自己|别人|人家|我|也|就|还|鬼|吗|么|才怪)"
    "|[^，。！？]{1,9}[没被乱])",
    "FEED": "(?:PUSH|发|刷|弹|展示|显示)",
    # Other verbs begin with 推, and other things than posts are pushed.
    "PUSH": "推(?:荐|送|销|播)?"
    "(?![迟开倒脱理动进翻测拿卸辞敲托诿搡却崇举算断导演选延后出不到向杆上下来去诚陈给]|广(?!告)"
    r"|[门车人墙我你您他她它]了?\W*$)",
    "SOMEBODY": "[你您他她人被]",
    "MATTER": "(?:内容|帖子?|文章|视频|影片|新闻|消息|广告|东西|推送|话题|节目)",
}
_ENGLISH = (
    # no more of it
    "(?:(?:can|could|would|will) you )?(?:please )?(?:just )?(?:stop|quit) "
    "(?:(?:showing|sending|recommending|suggesting|feeding|giving|pushing|spamming|bombarding) (?:me|us)(?: with)?"
    r"|recommending|suggesting)\b"
    r"(?! (?:around|hope|to)\b)",
    "(?:(?:can|could|would|will) you )?(?:please )?(?:just )?(?:(?:stop|quit) (?:pushing|forcing)"
    "|(?:don't|do not) (?:push|force)) THING"
    r"(?P<subject_pushed_at_me>(?:\w+ ){1,4})(?:on|to|at) (?:me|us)\b",
    "(?:stop|enough) with (?:the|this|these|those|all the|all this) ",
    r"stop (?:the|these|those|all)\b(?=.*\b\w+ (?:posts?|ads?|spam|content|videos)\b)",
    r"(?:hide|block|mute) all\bSTUFF",
    r"(?:hide|block|mute|remove) (?:everything|anything|all posts|all videos) about\b",
    r"no (?P<subject_asked_away>(?:\w+ ){1,3})(?:please|pls)\W*$",
    r"(?:(?:can|could|would|will) you not|don't|do not|never) (?:ever )?"
    r"(?:show|send|recommend|suggest|push|feed) (?:me|us)\b(?! the\b)",
    r"(?:get|remove|hide|keep) (?P<subject_kept_out>(?:\w+ ){1,4})(?:off|from|out of) my (?:feed|timeline)\b",
    r"(?:don't|do not) want (?P<subject_unwanted>(?:\w+ ){1,4})(?:in|on) my (?:feed|timeline)\b",
    r"(?:way )?too (?:much|many) (?P<subject_too_much>(?:\w+ ){1,4})(?:in|on) my (?:feed|timeline)\b",
    r"(?:show|send|give) (?:me|us) (?:less|fewer|no)\b",
    r"(?:want|would like|would love) to see (?:less|fewer|no more)\b",
    "why (?:do|are) you (?:keep|always|constantly|still) (?:showing|recommending|suggesting) (?:me )?THING",
    r"(?:enough|no more|less|fewer)\bSTUFF|(?<=please )no more THING",
    r"unsubscribe(?=\W*$| me\b)|(?:unsubscrib|unfollow|mut|block)(?:ed|ing) (?:from )?(?:all|every|any)\b",
    r"VERY(?:don't|do not|never) VERY(?:want|need) to (?:see|hear|read|get) "
    r"(?:any|anything|another|more|about|this|these)\b",
    "VERY(?:don't|do not) VERYwant to (?:see|hear about|read about) THING",
    r"never want to (?:see|hear|read) (?:about )?THING(?=.{1,40} (?:ever )?again\b)",
    # no interest in it
    "(?:am |are |was )?VERY(?:not|no longer) VERY"
    r"(?:(?:interested in|into|(?:keen|big) on|crazy about|fond of) THING|interested\W*$)",
    r"(?:(?P<subject_not_mine>.{1,40}?) VERY(?:(?:is|are) VERYnot|isn't|aren't)|not) (?:really )?"
    r"(?:my (?:thing|cup of tea|jam|scene|vibe)|for me)(?: at all)?\W*$",
    r"(?P<subject_that_leaves_cold>(?:(?!never\b|nothing\b)\S+ ){1,6}?)VERY"
    r"(?:bores? me(?: to (?:tears|death))?|does nothing for me|doesn't do it for me)\b",
    "(?:am )?(?:so|totally|completely) (?:done with|over(?! budget)) THING",
    r"(?:am )?done with THING(?P<subject_done_with>.{1,40}?) (?:forever|for good)\b",
    "hard pass on ",
    "(?:have |had |got )?VERY(?:no|zero) interest in THING",
    r"(?P<subject_of_little_interest>.{1,40}) (?:does not|doesn't|do not|don't) (?:really )?interest (?:me|us)\W*$",
    "(?:have )?VERYlost (?:all )?interest in THING",
    "VERY(?:(?:couldn't|could not) care less (?:about|for)|(?:don't|do not) care (?:much )?(?:about|for)) THING",
    r"(?:have )?never VERYcared (?:about|for) THING",
    # too much of it
    "(?:am |are |was |have been |got )?VERY(?:sick(?: and tired| to death)? of|tired of|fed up with|bored (?:of|with))"
    " THING",
    "(?:have )?(?:had|seen|heard) VERYenough (?:of|about) THING",
    # dislike
    "(?:am |are |was )?VERY(?:not|never been) VERY(?:an?|much of a) (?:big |huge )?fan of THING",
    r"VERY(?:hate|detest|loathe|despise|dislike) (?!(?:crimes?|speech|mail|groups?|u)\b)THING",
    "VERY(?:can't|cannot|can not) (?:stand|bear|abide) THING",
    "VERY(?:don't|do not|no longer|never) VERY(?:like|liked|enjoy|enjoyed) THING",
    r"VERY(?:hated|didn't like|did not like|didn't enjoy|did not enjoy) (?:it|this|that)\b",
    # damning
    r"(?:(?:this|it|that) (?:is|was) )?(?:such )?(?:a )?(?:complete |total |utter |huge )?waste of (?:time|money)\b",
    r"(?:wouldn't|would not|don't|do not|can't|cannot) recommend\b(?! \w+ing\b|.*\b(?:enough|highly)\b)",
    r"(?:returned|sent) it(?: back)?\W*$|(?:got|want|asked for) (?:a|my) (?:refund|money back)\b",
)
_CHINESE = (
    # no more of it
    "(?:别|不要|请勿|停止|少)AGAIN(?:给|向|跟|对)(?:我们?|俺)FEED",
    "(?:别|不要|请勿)AGAIN让我(?:看|刷|听)(?:到|见)?(?!.{0,8}SOMEBODY)",
    "(?:别|不要|少)AGAIN给我看点?(?!.{0,8}SOMEBODY)",
    r"少推(?:荐|送|播)?(?:一?点|一?些|\W*$)",
    "(?:怎么|为什么|为啥|干嘛)(?:又|还|总|老|一直|天天|整天)是?(?:在)?(?:给我)?PUSH",
    r"(?:别|不要)(?:再|老|总)(?:是)?发(?![呆火愁疯烧抖誓胖福慌怒]|脾气|牢骚|神经|朋友圈|微信|[消信]息)(?P<subject_posted>[^，。！？给]{1,12})了[\W_]*$",
    "NO_MOREAGAIN推(?:荐|送|播)?(?:了|这|任何|有?关)",
    "(?:别|不要|请勿)AGAIN(?:发|推)给我",
    r"(?:别|不要|请勿)AGAINPUSH(?P<subject_pushed>[^，。！？给]{1,12})(?:给我们?(?!的)|[了吗吧]+[\W_]*$)",
    r"(?:别|不要)(?:再|老|总|天天|整天)(?:是)?PUSH(?P<subject_pushed_again>[^，。！？给]{1,12})\W*$",
    r"请(?:别|不要|勿)PUSH(?P<subject_not_pushed>[^，。！？给]{1,12})[吗吧]?\W*$",
    "(?:别再|不要再|停止|取消)推(?:荐|送|播)(?!给(?!我))",
    r"再(?:给我)?推(?:荐|送)?(?P<subject_threatened>[^，。！？你您他她人家]{2,10}?)我?就(?:卸载|取关|拉黑|屏蔽|退订)了?\W*$",
    r"(?P<subject_spared>[^，。！？你您他她人]{2,10}?)求?求(?:你们?)?放过\W*$",
    "WHOLLY不想再?(?:看|听|刷|见|收|接)(?:到|见)?(?:任何|这[种类些个]|有?关|跟|和)",
    "WHOLLY不想再(?:看|听|刷|见|收|接)(?:到|见)?(?![完一]|.{0,8}SOMEBODY)",
    "再也不想(?:看|听|刷|见)(?:到|见)?(?![完一]|.{0,8}SOMEBODY)",
    r"WHOLLY不想(?:看|听|刷)(?:到|见)?(?=[^，。！？]{1,12}MATTER了?\W*$)(?!.{0,8}SOMEBODY)",
    r"WHOLLY不想(?:看|刷)(?P<subject_tired_of>(?!书|电视|手机|电脑|下去|[到见])[^，。！？你您他她人]{2,10})了\W*$",
    "(?:果断|直接|一键|全部)?(?:取关|取消关注|拉黑|屏蔽|退订)(?:了|所有|一切|任何|全部|$)",
    r"不再关注(?P<subject_left>[^，。！？你您他她人]{2,10}?)了\W*$",
    r"再也不(?:看|听|追|玩|刷)(?P<subject_given_up>[^，。！？你您他她人]{2,10})了\W*$",
    # no interest in it
    r"(?:不感兴趣|没兴趣|没有兴趣|无感)[了啊的]?\W*$",
    r"WHOLLY(?:不是我的(?:菜|茶)|不合我?的?(?:口味|胃口))[了啊的]?\W*$",
    r"(?:已经?|果断|直接)?(?:弃坑|退坑|弃番|弃剧|脱粉)[了啦]?\W*$",
    # too much of it
    "WHOLLY(?:受够了?|[看听刷玩吃追]腻了?|看烦了?|听烦了?|看吐了|厌倦了?)AFTER",
    "WHOLLY(?:烦死|烦透)(?:人|个人)?了?(?=.{2})AFTER",
    # damning
    r"WHOLLY(?:纯粹?|简直|白白)?(?:是|在)?(?<![别不要])浪费了?(?:我的?|大家的?)?(?:时间|钱|金钱|生命|感情)[了啊吧呢的]*\W*$",
    "WHOLLY(?:强烈|绝对|个人)?不推荐(?!.{0,8}SOMEBODY)",
    r"(?:千万|大家)?(?:别|不要)买(?:了|它)?\W*$",
    r"(?:一星|1星|给)?差评了?\W*$",
)
# These are the author's own only where nobody else stands before them.
_CHINESE_FEELINGS = (
    "(?:对(?P<subject_of_no_interest>[^也]{1,20}?))?WHOLLY(?:不感兴趣|不感冒|没兴趣|没有兴趣|没啥兴趣|没什么兴趣|毫无兴趣|提不起兴趣|无感(?!觉))AFTER",
    r"对(?P<subject_that_moves_nothing>[^也，。！？你您他她人]{1,12}?)WHOLLY(?:没(?:什么|啥)?感觉|不关心|不来电)[了啊的]?\W*$",
    "(?:对(?P<subject_of_not_a_bit>[^也]{1,20}?))?(?:一点|半点|一丝)儿?兴趣[都也]?没有AFTER",
    "WHOLLY(?:不关心|不关注)AFTER",
    "WHOLLY(?:讨厌死?|厌恶|反感)AFTER",
    "WHOLLY(?:不喜欢|不爱看|不爱听|不爱吃|不待见|欣赏不[来了]|喜欢不起来)AFTER",
)
_ENGLISH_START = (
    "(?:(?:ugh|argh|meh|please|pls|honestly|seriously|frankly|sorry|ok|okay|no|omg|hey|guys|and|just) )*(?:i |we )?"
)
_CHINESE_START = (
    "(?:(?>请|以后|今后|求求?你?们?了?|拜托|麻烦|能不能|能(?=[别不])|可不可以|可以|你们|系统|平台"
    "|啊|唉|哎|呃|说真的|说实话|老实说|讲真))*"
)
# What it is about may come first, but nobody else, and nothing that turns it round.
_ABOUT = "(?:(?!谁|没|不|非|即使|就算|他|她|人|大家|孩子|朋友|妈|爸|老|怎么|被|让|令|会|对|：).){1,14}?"
_TAKEN_BACK = re.compile(
    r"\b(?:but|though|although|however|yet|except|unless|until|till|instead|rather|prefer|than|once|at first|used to"
    r"|said|says|nobody|not complaining|never .*before|kidding|joking|going|off to|back to|wallet|afford|resist|hungry"
    r"|addicted|when|tbr|backlog|pile|(?:it's|it is|,) for (?:my|our)|without|need|spoilers?|as much"
    r"|(?:not|\w+n't) (?:just|simply)"
    r"|want to (?:see|hear|read|watch) .*end|so (?:i|we)"
    r"|(?:i|we) (?:really |do )?(?:like|want(?! to see (?:less|fewer|no more))))\b"
    "|但|不过|可是|然而|虽然|尽管|除了|反而|却|不如|宁可|宁愿|才怪|怎么可能|谁说|说我|以为|恨不得|开玩笑|真香"
    "|起初|一开始|本来|原本|以前|曾经|小时候|如果|要是|不是不|没有不|[没不]那么|[以之]外"
    "|只|太|更|去|(?<!能)不能|还没|周末|剧透|钱包|种草|剁手|忍不住|上头|馋|饿|就想|买买买|我买|下单了"
)
# What is qualified is a part of a subject: 不喜欢人多的路线.
_QUALIFIED = re.compile(r"(?<!真)的(?=[\u4e00-\u9fff])(?!内容|帖|文章|视频|新闻|消息|广告|东西|推送|话题)")
_REQUEST = re.compile(
    "(?:can|could|would|will) you|please|why (?:do|are) you|(?:怎么|为什么|为啥|干嘛)[又还总老一天整]"
    "|能不能|可不可以|可以|请|求"
)
_WORD = re.compile(rf"[{HAN}]{{1,2}}|[^\W_{HAN}]+(?:'[a-z]+)?")
_CLAUSE = re.compile(r"[^.!?,;~…。！？，、；～—]+[.!?,;~…。！？，、；～—]*")
_SPACE = re.compile(f"(?<=[{HAN}]) (?=[{HAN}])")
"""Between Chinese characters it stands for a comma."""
_PLEASE = re.compile(r", please(?=\W*$)", re.IGNORECASE)
"""Elsewhere it begins what is asked for: "I am vegetarian, please …"."""
_OFFERED = re.compile(
    r"(?!(?:want|need|any\w*|some\w*|more|another|you|would|do|does|is|are|can|could|shall|should|what|who|how|why|help)\b)"
    r"(?P<subject>\w+(?: \w+){0,2})\? (?:no,? (?:thanks|thank you)|hard pass)\W*"
)
"""A whole text: "Golf? No thanks."."""
_ASKED_AGAIN = re.compile(
    r"(?:please )?\b(?:stop|quit|don't|do not) (?:recommend|suggest)\w*(?: (?:it|this|that|them)\b)?"
    "|不推荐|请?(?:别|不要)再?推荐?了?",
    re.IGNORECASE,
)
"""What follows a refusal, and is neither a part of its subject nor praise."""
_SAYS_NOTHING = re.compile(
    r"\b(?:it|this|that|them|these|those|please|again|any ?more|now|already|i|we|me|us"
    r"|(?:(?:such|more|the|your) )?posts)\b"
    "|请|麻烦|拜托|这[种类些个样]?|那[种类些个]?|它们?|我们?|[了的吧啊呢吗]|内容|东西"
)
_MATTER = re.compile(rf"(?<=[\u4e00-\u9fff]{{2}})的?{_PIECES['MATTER']}$")
"""What posts are called, after what they are about."""
_ADDRESS = re.compile(rf"{_CHINESE_START}(?:我们?(?![\u4e00-\u9fff]))?")
_SPELT_OUT = {
    "’": "'",
    "i'm ": "i am ",
    "we're ": "we are ",
    "i've ": "i have ",
    "i'd ": "i would ",
    "dont ": "don't ",
    "cant ": "can't ",
    # Cantonese
    "唔好": "不要",
    "唔想": "不想",
    "唔钟意": "不喜欢",
    "唔感兴趣": "不感兴趣",
    "冇兴趣": "没兴趣",
    "可唔可以": "可不可以",
    "俾我": "给我",
    "畀我": "给我",
    "睇到": "看到",
}


def refused(text: str, segment: Callable[[str], Sequence[str]]) -> str | None:
    """What a text, as `Document.text`, plainly refuses: the text without the phrase that does; None where none does.

    `segment` cuts a text into words and marks.
    """
    written = _SPACE.sub("，", text)
    for contraction, in_full in _SPELT_OUT.items():
        written = re.sub(re.escape(contraction), in_full, written, flags=re.IGNORECASE)
    written = _PLEASE.sub(" please", written)
    plain = written.lower()
    if len(text) > 10 * LONGEST or len(_WORD.findall(plain)) > LONGEST or _TAKEN_BACK.search(plain):
        return None
    # Some letters are longer in lower case.
    whole = written if len(written) == len(plain) else plain
    if offered := _OFFERED.fullmatch(plain):
        return whole[: offered.end("subject")]
    refusal = _refusal(plain)
    if refusal is None:
        return None
    after = plain[refusal.end :]
    if _QUALIFIED.search(after) or holds_praise(segment(f"{plain[: refusal.begin]} . {_ASKED_AGAIN.sub(' ', after)}")):
        return None
    told = whole[refusal.subject]
    own = f"{whole[refusal.clause : refusal.begin]} {told} {whole[refusal.end : refusal.clause_end]}"
    # What stands before or after the clause is about something else, if that says what it refuses:
    # "I am vegetarian, …", "…, cooking tonight".
    if not _names(own):
        own = whole[: refusal.clause] + own + _ASKED_AGAIN.sub(" ", whole[refusal.clause_end :])
    if not _names(own):
        return ""
    subject = trimmed(_ADDRESS.sub("", own.strip()))
    return _MATTER.sub("", subject)


def _names(text: str) -> bool:
    """Whether something is left of a text without the words that say nothing of what it is about."""
    return _WORD.search(_SAYS_NOTHING.sub(" ", text)) is not None


class _Refusal(NamedTuple):
    """Where a phrase that refuses stands in a text, and the clause that it stands in."""

    clause: int
    begin: int
    end: int
    clause_end: int
    subject: slice
    """What the phrase itself says it is about; empty if it does not."""


def _refusal(text: str) -> _Refusal | None:
    """Find the phrase that refuses: in the first clause that is more than a remark, or later one that says "it"."""
    opening = True
    for clause in _CLAUSE.finditer(text):
        said = clause.group().strip(" \"'*()")
        start = clause.start() + clause.group().index(said)
        asked = clause.group().rstrip().endswith(("?", "？"))
        if not asked or _REQUEST.match(said):
            for pattern in _patterns(opening):
                if found := pattern.match(said):
                    spans = [found.span(name) for name in found.groupdict() if name.startswith("subject")]
                    begin, end = max(spans, default=(-1, -1))
                    return _Refusal(
                        clause.start(),
                        start + found.start("phrase"),
                        start + found.end("phrase"),
                        clause.end(),
                        slice(start + begin, start + end) if begin >= 0 else slice(0, 0),
                    )
        opening = opening and len(_WORD.findall(said)) <= REMARK
    return None


@functools.cache
def _patterns(opening: bool) -> list[re.Pattern[str]]:
    """Patterns of a clause; after the opening what is refused must have been named before."""
    pieces = _PIECES if opening else {**_PIECES, "THING": "(?:it|this|that|them)"}
    about = f"(?:{_ABOUT})??" if opening else ""
    about_own = f"(?:{_ABOUT}我们?)?" if opening else ""
    end = "" if opening else r"(?:了|的|啊|啦|吧| anymore| any more| already| now|\W)*$"
    patterns = []
    # Before a Chinese phrase may stand what it is about; what stands before an English one is a part of it.
    for before, start, phrases in (
        ("", _ENGLISH_START, _ENGLISH),
        (f"{_CHINESE_START}(?:我们?|本人)?{about}{_CHINESE_START}(?:我们?)?", "", _CHINESE),
        (f"{_CHINESE_START}(?:我们?|本人|{about_own})", "", _CHINESE_FEELINGS),
    ):
        pattern = f"{before}(?P<phrase>{start}(?:{'|'.join(phrases)})){end}"
        for name, piece in pieces.items():
            pattern = pattern.replace(name, piece)
        patterns.append(re.compile(pattern))
    return patterns
