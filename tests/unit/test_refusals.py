from __future__ import annotations

import re
import time
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from penchant_pipelines.interests import Evidence, InterestSettings
from penchant_pipelines.interests.evidence import weighing
from penchant_pipelines.model import Action, Post
from penchant_pipelines.reader import Reader
from penchant_pipelines.refusals import _CHINESE_START, _ENGLISH_START, _PIECES, LONGEST, RATING, refused
from penchant_pipelines.text import TextPipeline, TextSettings

TEXT = TextPipeline(TextSettings())

REFUSALS = """
浪费时间
简直浪费钱！
垃圾片单，浪费时间
浪费时间，不推荐
不推荐这款咖啡机，漏水
千万别买，已退货
垃圾，别买
一星差评
Please stop showing me crypto
I am sick of crypto posts
Not interested in bitcoin, ever
Not a fan of jazz
I don't like football anymore
Terrible phone, the battery died within a week. Returned it.
Can you please stop recommending me true crime?
Stop sending me recipes!!
Ugh, no more crypto posts please
no more celebrity gossip, please
I hate reality TV
Hate gardening.
I can't stand country music
can’t stand horror films
I'm so tired of political news
I’m really sick and tired of influencers
Bitcoin? Not interested.
Crypto again, so sick of it.
I have no interest in golf whatsoever
I've lost all interest in video games
I couldn't care less about fashion
I don't want to see any more crypto in my feed
Do not show me cooking videos
Don't ever recommend me self-help books
show me less politics
Less crypto, please
fewer baby pictures please
Enough crypto already!
Honestly, not really into anime
I really dislike romance novels
never liked opera
I dont like sushi
Fed up with superhero movies
I'm bored of football
Unsubscribe.
Unfollowing every crypto account today
Hated it. Complete waste of money
A waste of time
I wouldn't recommend this phone
Not my cup of tea
Cricket is not for me
I've had enough of Marvel
Quit showing me ads for trucks
ok I despise running
We're not interested in timeshares
别再给我推比特币了
取消推荐减肥课
不再关注加密货币了
我對股票冇興趣
我讨厌数字货币，都是骗局
不要再推荐比特币了
不想再看到加密货币
不想看到任何关于足球的内容
对比特币不感兴趣
我对篮球完全没兴趣
比特币，完全不感兴趣
受够了数字货币
烦死比特币了，天天推
看腻了，别推了
又是比特币，看腻了
我不喜欢爵士乐
取关所有币圈博主
拉黑了
别老给我推鞋子广告
請不要再給我推送彩妝
我討厭恐怖片
能不能别再给我推股票了？
求求你们别再推了
足球我真的不感兴趣
真的很讨厌健身
一点都不喜欢足球
对明星八卦毫无兴趣
少给我推育儿内容
不要给我发游戏广告了
停止推荐军事内容
我不爱看综艺
厌倦了选秀节目
比特币别再给我推了！
不感兴趣
没兴趣，谢谢
说实话，我对动漫无感
最烦综艺了，看吐了
果断取关
比特币 不感兴趣
I'm not interested in cars.
stop recommending me makeup tutorials
Please don't show me any more wedding dresses
I really can't stand K-pop
Get this NFT garbage off my feed
I have zero interest in NFTs
no thanks, not into gaming
I hate golf. Boring.
Not keen on rugby
I'm sick to death of celebrity news
Crypto isn't for me
Don't want crypto in my feed
Remove crypto from my feed
I never want to see another reality show
别再推荐足球了
能不能不要再推送足球了
我对足球不感冒
真心不喜欢日料
讨厌死综艺了
这类内容我不想再看到了
对综艺实在无感
不要给我推荐比特币
已取关
股票的帖子别发给我了
I am vegetarian, please stop recommending steakhouses
We don't eat meat, stop recommending burger places
Golf? No thanks.
stop pushing golf on me
Could you not show me poker?
I don't want to see celebrity gossip
I never want to see reality shows again
Enough with the diet tips
hide everything about astrology
no country music please
please no more crypto
Baseball does not interest me
I don't like sushi, stop recommending it
别推综艺给我了
不要再推足球了
能不能别推宠物了
拜託不要再推直銷給我了
請停止推播房地產廣告
汽车就不用推了
足球没兴趣
我对星座一点兴趣都没有
不想看足球了
再也不想看到直播带货了
我不想看到賭博的東西
少推点美食
以后别给我看育儿的内容
別再讓我看到政治新聞
so done with keto
I'm completely over superhero movies
K-pop does nothing for me
Cricket bores me to tears
Poker just isn't my scene
I've never cared for whisky
not big on seafood
I'm not too fond of opera
I couldn't care less for golf
I strongly dislike country music
Why do you keep showing me lipstick?
Could you stop bombarding me with car ads
please don't push golf on me
too many dog videos in my feed
No horoscopes pls
Musicals? Hard pass.
hard pass on golf
I'd like to see fewer wedding posts
I want to see less golf
stop all the crypto ads
block all gambling ads please
fed up with all the AI hype
怎么又给我推健身课
为什么一直推奶茶？
别再发足球了
不要老发养生文章了
别总推护肤品
请不要推荐酒类
直播少推
韩剧不是我的菜
螺蛳粉不合我口味
我对赛车没什么感觉
不关注时尚圈
欣赏不了抽象画
玩腻了王者荣耀
再也不追综艺了
果断弃剧
已退坑
""".strip().splitlines()

OTHERS = """
别推了别推了，这相机我买还不行吗
不要再推荐我了，我已经下单了露营椅
别浪费时间了
没有浪费时间
浪费时间的人
为什么我们在这上面浪费时间？
不推荐你去
别买贵的，买这个
给差评的人都不懂
I hate seeing dogs suffer
can't stand watching animals die
Sick of hearing kids cry
I hate cheaters in Valorant
I can't stand cruelty to animals
I hate racism in football
I don't like soggy pizza
I dislike overcooked steak
I hate Sundays when there's no football
don't show me cake when I'm on a diet
I never liked poetry when I was younger
I never cared for tea before Kyoto
and I hate losing
This cake is not for me, it's for my sister
Stop giving me hope, Arsenal
Stop sending me to the bench, coach
stop recommending books, my TBR pile is too high
So over the moon with my new bike
totally over budget on lenses this month
jazz never bores me
nothing bores me about astronomy
why do you keep showing me the same sunset? Because it never gets old
Too much cheese in my feed, and I'm not complaining
stop the car, there's a heron
讨厌输球
最讨厌健身房没位置
不喜欢一个人看电影
不喜欢在跑步机上跑
不想再看到流浪猫被欺负
反感有人在山上乱扔垃圾
别让我看到猫，看到就想养
别再给我推眼霜优惠了，买买买
别再发呆了，去跑步
不要再发烧了，宝贝
怎么老推不开这扇门
为什么总推迟训练
别老推杆，先练挥杆
为什么取关了？
我对他没感觉
Never want to see this hike end
I don't want to see this show end
I can't stand watching my team lose
I don't just like pizza
I'm not just into golf
I don't like golf as much as tennis
Not a fan of bad coffee
I hate fake ramen
受够了假咖啡
讨厌烂片
受够了你
对足球以外的都不感兴趣
我对足球没那么不感兴趣
Why do people hate jazz?
I don't hate jazz
not that I'm tired of it
can't stop watching this show
I can't get enough of sourdough
I never get tired of Coltrane
love football, hate the referees
hate crime law
hate speech regulation
Do you hate cilantro too?
My neighbours hate me, best weekend ever
He hates jazz
I hate when the dough sticks to the counter
I hate it when my chain drops on a climb
I hate to say it but this phone is great
I hate that the season is over
I hate my bike's rear derailleur
I hate waiting for the next season
I hated maths at school, now I teach it
I didn't like jazz until I heard Coltrane
I don't like jazz, I love it
I don't like anything better than jazz
I'm tired of waiting for the next bouldering session
My legs are tired of running, happy though
I am sick, so no run today
Sick of work, going climbing
Don't stop showing me cat videos
Never stop sending me cat pictures
I don't care about the rain, going for a run
I don't want this book to end
Not interested? Then you have never heard Coltrane live
No more excuses, running a marathon in May
no more coffee in the house, off to the roastery
Never again without my headlamp
Enough coffee for today
I'm not a fan, I'm a fanatic
Who doesn't like football?
If you hate running, try trails
how to unsubscribe from a mailing list
how do I block ads on android
unsubscribe rate benchmarks
"I hate jazz" is what he said
People who are not interested in football miss out
Stop me from buying more plants
Stop motion animation for beginners
worst case execution time analysis
Less is more: minimalist photography
stop sign detection with yolo
The worst run of my life, returned home soaked
Returned it to the library, on to the next volume
I used to hate running
tired of football? Try handball
I'm not tired of crypto
Couldn't care less about the score, what a match
Nobody can stand still when this band plays
can't stand still, so excited
I don't like the ending of this novel
sick guitar solo
Wouldn't recommend it to beginners, but what a climb
Stop showing me plants, my wallet can't take it
don't recommend me any more books, my shelves are full and I can't resist
谁说我不喜欢爵士
不是不喜欢足球，是没时间看
恨不得天天吃火锅
讨厌的人也会喜欢这部电影
为什么有人讨厌香菜？
你不喜欢猫吗
他不喜欢咖啡
我不讨厌跑步
看不腻的日落
百看不厌
怎么听都听不腻
喜欢足球，讨厌裁判
讨厌自己没早点开始跑步
讨厌下班，想继续写代码，太爱了
别推迟，今天就去跑步
Can't recommend this book enough
I cannot recommend it highly enough
不要推荐太贵的咖啡机
不想看完，舍不得
不喜欢就别看
如果不感兴趣可以划走
很多人对天文不感兴趣，可惜了
以前讨厌跑步，现在一周五次
小时候不喜欢吃苦瓜
不感兴趣的人可以跳过，今天聊手冲
怎么屏蔽广告
被喜欢的博主拉黑了
猫很讨厌吸尘器
女朋友讨厌榴莲
可爱到受不了
好看到烦死了又要熬夜
我不喜欢他，但他的画真好
不是没兴趣，是买不起
不得不喜欢
从没看腻过这片海
不想回家，还想再爬一座山
别再给我讲道理，我就要买镜头
推理小说推荐
讨厌鬼的烘焙日记
求推荐不喜欢甜口的人能吃的月饼
哪有人会不喜欢猫啊
令人讨厌的松子的一生
被讨厌的勇气
别再推荐了，钱包空了
请别再推荐给别人了，这是我的秘密小店
Not interested in losing: back to training tomorrow
I hate mornings without coffee
I can't stand the heat so I went swimming
I hate how good this pizza is
I hate leaving the mountains
Can't stand losing, great race today
I don't like how few people know about bouldering
I don't want to see another sunrise without my camera
Sick of rain, need sun
tired of my old lens, new one arrived
No more posts today, off hiking
No more sugar in my coffee
Enough said: best pizza in town
I do not recommend climbing it without a guide
I wouldn't recommend skipping this museum
I never liked tea until matcha
unsubscribed from the gym, now running outdoors
Blocked my calendar for the marathon
Waste of time they said, now I have a telescope
Returned it with thanks, great drill
I hate spoilers so I read the whole series
Don't show me the ending!
Don't send me home yet, this concert is magic
I hate to leave Kyoto
讨厌剧透！我还没看完三体
讨厌雨天，不能去跑步
不喜欢速溶，只喝手冲
不喜欢人多的登山路线
不要再推荐更贵的镜头了
别推荐给她
我不喜欢没有猫的日子
厌倦了城市，周末去徒步
受够了上班，想去露营
不感兴趣的可以不看，我就是爱晒娃
对足球不感兴趣的人不懂这种快乐
拉黑了所有说猫坏话的人
不想看到三体结束
没兴趣加班，去爬山
stop pushing me around
My boss keeps pushing deadlines on me
More coffee? No thanks.
Would you like tea? No thanks.
No thanks to the rain we stayed in
I don't want to see the summer end
I don't want to see him cry
别推我
别再推卸责任了
不要再推车了
不想再看到你
不想看书了
不想看他哭
他没兴趣
要不要推塔
""".strip().splitlines()


def refuses(text: str) -> bool:
    return refused(TEXT.read(text).text, TEXT.segment) is not None


@pytest.mark.parametrize("text", REFUSALS)
def test_a_plain_refusal_is_heard(text: str) -> None:
    assert refuses(text)


@pytest.mark.parametrize("text", OTHERS)
def test_questions_mixed_feelings_and_what_others_refuse_are_none(text: str) -> None:
    assert not refuses(text)


def test_a_long_text_tells_more_than_a_refusal() -> None:
    assert refuses("I hate gardening. " + "Weeds everywhere. " * 10)
    assert not refuses("I hate gardening. " + "Weeds everywhere. " * LONGEST)
    assert refuses("讨厌健身。" + "又累又贵。" * 10)
    assert not refuses("讨厌健身。" + "又累又贵。" * LONGEST)


def test_a_refusal_counts_as_not_interested_does() -> None:
    settings = InterestSettings()
    refusal = weighing(Evidence("1", 0, None, rating=RATING), settings)
    not_interested = weighing(Evidence("2", 0, None, Action.NOT_INTERESTED), settings)
    assert refusal.weight == pytest.approx(not_interested.weight)
    assert refusal.half_life_days == not_interested.half_life_days


@pytest.mark.parametrize("text", ["Please stop showing me crypto", "別再給我推比特幣了", "不感兴趣"])
def test_the_authors_own_rating_is_never_overruled(text: str) -> None:
    reader = Reader(TEXT)
    assert reader.post(Post(text))[1].verdict == RATING
    rated = reader.post(Post(text, rating=0.5))[1]
    assert rated.inferred_rating is None
    assert rated.verdict == 0.5


@pytest.mark.parametrize(
    ("text", "subject"),
    [
        ("Stop showing me football", "football"),
        ("I'm so tired of NBA gossip", "NBA gossip"),
        ("Crypto bros again. Not a fan of this", "Crypto bros"),
        ("别再给我推比特币了", "比特币"),
        ("对足球不感兴趣", "足球"),
        ("我讨厌榴莲", "榴莲"),
        ("咖啡我真的不感冒", "咖啡"),
        ("Opera is not my thing, sorry!", "Opera"),
        ("Opera is really not for me at all", "Opera"),
        ("done with opera forever, it's just shouting", "opera"),
        ("I don't want politics in my feed, please", "politics"),
        ("I am vegetarian, please stop recommending steakhouses", "steakhouses"),
        ("Golf? No thanks.", "Golf"),
        ("Please stop pushing golf on me", "golf"),
        ("I don't like sushi, stop recommending it", "sushi"),
        ("别推综艺给我了", "综艺"),
        ("麻烦停止推送理财广告", "理财"),
        ("我不喜欢榴莲，别推荐了", "榴莲"),
        ("Keep Politics out of my feed, thanks", "Politics"),
        ("I am sick of crypto posts", "crypto"),
        ("Anime just isn't my thing", "Anime"),
        ("别再发足球了", "足球"),
        ("不推荐这款咖啡机，漏水", "咖啡机"),
        ("垃圾片单，浪费时间", "片单"),
        ("Tired of takeaway, cooking at home tonight", "takeaway"),
        ("I'm not into football. I'm into rugby.", "football"),
        ("I hate Mondays. Coffee first.", "Mondays"),
        ("对跑步机没兴趣，跟朋友在山里越野跑才是王道", "跑步机"),
    ],
)
def test_it_is_about_what_is_refused_and_not_about_refusing(text: str, subject: str) -> None:
    reader = Reader(TEXT)
    document, _ = reader.post(Post(text))
    assert subject in document.text
    assert len(document.text) <= len(subject) + 12
    assert document == reader.subject(text, "", "", RATING)
    # With a rating of the author's own the words are no refusal, and are kept.
    assert reader.post(Post(text, rating=1.0))[0] == reader.subject(text, "", "", None) == TEXT.gist(TEXT.read(text))


@pytest.mark.parametrize(
    ("text", "subject", "terms"),
    [
        ("別再推薦電動車給我了", "电动车", ("電動車",)),
        ("討厭加密貨幣廣告", "加密货币", ("加密貨幣",)),
        ("唔好再推股票廣告俾我", "股票", ("股票",)),
        ("减肥内容求放过", "减肥", ("减肥",)),
        ("再推比特币我就卸载", "比特币", ("比特币",)),
        ("别再给我推比特币了！", "比特币", ("比特币",)),
        ("stop showing me .NET posts!", ".NET", (".NET",)),
        ("stop showing me C++", "C++", ("c++",)),
    ],
)
def test_what_is_refused_stands_alone_and_is_called_as_the_user_writes(
    text: str, subject: str, terms: tuple[str, ...]
) -> None:
    document, _ = Reader(TEXT).post(Post(text))
    assert document.text == subject
    assert document.terms == terms


def test_a_refusal_without_a_subject_is_called_by_its_beginning_as_it_was_written() -> None:
    assert Reader(TEXT).post(Post("A waste of money, don't buy"))[0].terms == ("“don't buy”",)
    assert Reader(TEXT).post(Post("不感興趣"))[0].terms == ("“不感興趣”",)


@pytest.mark.parametrize(
    "text",
    [
        "Not my cup of tea",
        "This is a waste of money",
        "I hate &lt;br&gt;",
        "不感兴趣",
        "I didn't enjoy it",
        "Stop showing me this",
        "I hate this",
        "我不喜欢",
    ],
)
def test_a_refusal_that_names_nothing_is_kept_whole_and_counts_for_its_item_alone(text: str) -> None:
    document, post = Reader(TEXT).post(Post(text))
    assert document.text == TEXT.read(text).text
    told = Evidence("1", 0, None, rating=post.verdict, terms=document.terms, language=document.language)
    assert weighing(told, InterestSettings()).weight == 0
    assert weighing(replace(told, item_id="film"), InterestSettings()).weight == pytest.approx(-0.8)


@given(st.text(alphabet="ihate 别再推荐给我了不喜欢.,?!，。？", max_size=80))
def test_any_text_can_be_looked_at(text: str) -> None:
    assert isinstance(refused(text, TEXT.segment), str | None)


FILLERS = re.findall("[a-z ]+|[\u4e00-\u9fff]+", "".join([*_PIECES.values(), _CHINESE_START, _ENGLISH_START]))


@settings(max_examples=500, deadline=None)
@given(st.lists(st.sampled_from(FILLERS), min_size=1, max_size=4), st.integers(1, 30))
@example(["求求你们"], 12)
@example(["真的是真心"], 12)
@example(["一点都"], 16)
def test_no_text_takes_longer_than_a_blink(pieces: list[str], times: int) -> None:
    start = time.thread_time()  # of the processor: a busy machine is no fault of the patterns
    refused("".join(pieces) * times, lambda text: [text])
    assert time.thread_time() - start < 0.5


def test_letters_that_are_longer_in_lower_case_shift_nothing() -> None:
    subject = refused("İ, stop showing me Crypto", TEXT.segment)
    assert subject is not None
    assert subject.split()[-1] == "crypto"
