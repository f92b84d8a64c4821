"""With magika installed, code is detected that the rules for lines miss."""

import pytest

from embedway.selection.analysis import analyze
from embedway.selection.code_detection import looks_like_code

pytestmark = pytest.mark.peers

#: Code whose lines match no language of the rules.
RUBY = """class Dog
  attr_reader :name
  def initialize name
    @name = name
  end
  def bark
    puts "Woof" unless @name.nil?
  end
end
"""
PROSE = "A vector belongs to one space, and distances between two spaces mean nothing to whoever searches. " * 5


def test_magika_finds_code_that_the_look_misses():
    assert not looks_like_code(RUBY)
    analysis = analyze([RUBY])
    assert analysis.code_by == "look and magika"
    assert analysis.contains_code
    assert not analyze([PROSE]).contains_code
