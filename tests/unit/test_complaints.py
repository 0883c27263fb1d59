from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penchant_pipelines.complaints import LONGEST, RATING, complains
from penchant_pipelines.interests import Evidence, InterestSettings
from penchant_pipelines.interests.evidence import weighing
from penchant_pipelines.model import Post
from penchant_pipelines.reader import Reader
from penchant_pipelines.text import TextPipeline, TextSettings

TEXT = TextPipeline(TextSettings())

COMPLAINTS = """
又踩雷了，这家火锅的毛肚是臭的
踩了个大雷，民宿的床单都没换
避雷这家修车行
姐妹们快避雷，粉底一抹就脱妆
種草很久，結果拔草了
网红泡芙已拔草
所谓的水光仪就是智商税
看见报价直接劝退
盒饭难吃到怀疑人生
这咖啡真难喝
又贵又难吃
全程烂片套路
新耳机三天就坏了
鼠标用了没多久就断，垃圾
客服踢皮球，退款拖了两周
物业的态度极差
剧情一言难尽
装修质量惨不忍睹
再也不来了
不会再买第二次
这部续集真让人失望
被旅行社坑惨了，被坑得不轻
"""

OTHERS = """
第一次买没踩雷，开心
跟着攻略走就不会踩雷
不踩雷的拉面店
求避雷，想买扫地机器人
怕踩雷，先看看测评
这个到底是不是智商税？
空气炸锅是智商税吗
本来以为是智商税，真香
拔草成功，名不虚传
周末拔草之旅第一站
榴莲没有想象中难吃
虽然排队劝退，但是味道值得
这家店难看但好吃
小区垃圾分类做得不错
楼下的烂尾楼终于复工
他低下头看书
下头的路还很长
听说那家餐厅很难吃
一点都不难吃
这部片不烂
哈哈被自己做的饭难吃到了
喜欢这家店
今天去了图书馆
"""


def lines(texts: str) -> list[str]:
    return texts.split("\n")[1:-1]


@pytest.mark.parametrize("text", lines(COMPLAINTS))
def test_a_plain_complaint_is_no_praise(text: str) -> None:
    _, post = Reader(TEXT).post(Post(text))
    assert post.inferred_rating == RATING
    told = Evidence("1", 0, None, rating=post.verdict, language="zh")
    assert 0 <= weighing(told, InterestSettings()).weight < 0.1


@pytest.mark.parametrize("text", lines(OTHERS))
def test_what_is_turned_round_asked_or_feared_is_none(text: str) -> None:
    assert Reader(TEXT).post(Post(text))[1].inferred_rating is None


def test_the_authors_own_rating_counts() -> None:
    assert Reader(TEXT).post(Post("又贵又难吃", rating=0.5))[1].inferred_rating is None


def test_a_long_text_tells_more() -> None:
    assert complains("又贵又难吃，" + "下次换一家" * 5, TEXT.segment)
    assert not complains("又贵又难吃，" + "下次换一家" * LONGEST, TEXT.segment)


@given(st.text())
def test_any_text_can_be_looked_at(text: str) -> None:
    assert complains(text, TEXT.segment) in (True, False)
