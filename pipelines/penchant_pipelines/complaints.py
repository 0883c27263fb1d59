"""Does its author plainly complain, in Chinese? "又踩雷了", "难吃到想报警".

By rule, since the reviews that stance learns from hardly hold such words. Who complains of a dish may well love to
eat: a complaint is no dislike of what it is about, only no praise. What is mixed, asked, feared or told of others is
none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from penchant_pipelines.stance import holds_praise

RATING = -0.2
"""What a complaint counts as: at the default neutral rating next to nothing, as what stance blames in English does."""
LONGEST = 60
"""Characters of the longest text that is looked at: what is longer tells more."""

_NOT = "(?<![不没别非未勿零防怕求免])(?<!没有)(?<!不会)(?<!不算)(?<!不再)(?<!从未)(?<!那么)(?<!怎么)"
"""What stands before turns it round."""
_COMPLAINT = re.compile(
    f"{_NOT}(?:"
    "踩(?:了|到)?(?:个|大)*[雷坑]|避雷(?![针器指攻])|拔草(?!成功|之旅|清单|一家)|智商税|割韭菜|劝退(?!率|信)"
    "|难(?:[吃喝看听用闻])(?:到|死|得|极了|爆|的(?:[要一]))|(?:太|真|好|超|又贵又|巨|贼|这么)(?:难[吃喝看听用闻]|差劲|垃圾|坑人?|烂)"
    "|烂(?:片|剧|书|尾(?!楼)|透)|(?:^|[，。！!是真纯])垃圾(?=[，。！!~～…\\s]|[得透]|$)|拉胯|(?:^|[，。！!太真好很])下头(?=[，。！!\\s]|$)|一言难尽|一无是处|惨不忍睹|不忍直视|辣眼睛"
    "|喜欢不起来|欣赏不[来了]|被坑(?:惨|了|得)|大失所望|(?:令|让)人失望|越大(?:，)?失望越大|(?:太|很|好|真)失望|吃了个寂寞"
    "|后悔[买去点看](?!晚|少)|翻车了|脱妆|踢皮球|氪金太|没法下嘴|下不去嘴|货不对板|粗制滥造|敷衍了事|态度(?:恶劣|极差|很差|太差)"
    ")"
    "|不会再(?:来|买|去|用|看|点|光顾|回购)(?!晚)|再也不(?:会?(?:来|买|去|用|点)了?)(?=[，。！!~～…\\s]|$|第二)"
    "|不值(?:这个价|那个价|这个钱|当)|没什么好[看吃玩]的|一点[儿]?(?:也|都)不好[看吃喝玩用听]|(?:大家|千万|赶紧)?别(?:上当|去了|买了)(?=[，。！!\\s]|$)"
    "|(?:一周|三天|两天|几天|一个月|没多久|没几天)就(?:坏|破|断|裂|缩水)了?|(?:全是|都是)套路|虚假宣传"
)
_TURNED = re.compile(
    "但|不过|可是|然而|虽然|尽管|除了|反而|却|才怪|谁说|以为|本来|原本|以前|之前|曾经|如果|要是|担心|会不会|是不是|避免|防止"
    "|有没有|请问|求(?!求)|听说|据说|传说|有人说|网友|没想到|想象|哪里|真香|哈哈|[吗么][？?]?\\W*$|[？?]\\W*$"
)


def complains(text: str, segment: Callable[[str], Sequence[str]]) -> bool:
    """Whether a Chinese text, as `Document.text`, is a plain complaint; `segment` cuts it into words and marks."""
    if len(text) > LONGEST or not _COMPLAINT.search(text) or _TURNED.search(text):
        return False
    return not holds_praise(segment(_COMPLAINT.sub(" ", text)))
