from __future__ import annotations

import pytest

from preprocess.encodings import encoding_of
from preprocess.formats import sniff
from preprocess.source import Limits, Source

WORDS = "time;accélération x (m/s²)\n0,1;2,5\n" * 20


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("utf-8", "utf-8"), ("utf-8-sig", "utf-8-sig"), ("utf-16", "utf-16"), ("utf-16-le", "utf-16-le"),
        ("utf-16-be", "utf-16-be"), ("utf-32", "utf-32"), ("latin-1", "cp1252"), ("cp1252", "cp1252"),
    ],
)  # fmt: skip
def test_encodings_are_told_from_the_first_bytes_wherever_these_end(written: str, found: str) -> None:
    content = WORDS.encode(written)
    assert content.decode(found) == WORDS
    for length in range(200, 216):
        assert encoding_of(content[:length]) == found


@pytest.mark.parametrize("content", [bytes(range(256)), b"\xff\xfb\x90\x00" * 64, b"\x81abc", b"abc\x00\x00def"])
def test_what_is_no_text_has_no_encoding(content: bytes) -> None:
    assert encoding_of(content) is None


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "latin-1"])
def test_tables_and_prose_are_recognised_in_every_encoding(encoding: str) -> None:
    assert sniff(Source(WORDS.encode(encoding), "log.csv"), Limits()).name == "csv"
    assert sniff(Source(WORDS.encode(encoding), "words.txt"), Limits()).name == "text"


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Сегодня я видел собаку на пляже у моря.", "cp1251"),  # noqa: RUF001
        ("Сегодня я видел собаку на пляже у моря.", "koi8_r"),  # noqa: RUF001
        ("Ένας σκύλος τρέχει στην παραλία δίπλα στη θάλασσα.", "cp1253"),
        ("海のそばの浜辺で犬が走っています。今日は天気がいいです。", "cp932"),
        ("海のそばの浜辺で犬が走っています。今日は天気がいいです。", "euc_jp"),
        ("今天我在海边的沙滩上看到一只狗。天气很好。", "gb18030"),
        ("今天我在海邊的沙灘上看到一隻狗。天氣很好。", "big5"),
        ("오늘 바닷가 모래사장에서 개 한 마리를 보았다.", "cp949"),
        ("วันนี้ฉันเห็นสุนัขตัวหนึ่งบนชายหาด", "cp874"),
        ("היום ראיתי כלב על החוף ליד הים.", "cp1255"),
        ("رأيت اليوم كلبا على الشاطئ بجانب البحر.", "cp1256"),
        ("Ein süßes Hündchen überquert die Straße.", "cp1252"),
        ("J'ai vu un chien très âgé à la plage près de la forêt.", "cp1252"),
    ],
)
def test_scripts_of_earlier_days(text: str, encoding: str) -> None:
    assert encoding_of(text.encode(encoding)) == encoding
