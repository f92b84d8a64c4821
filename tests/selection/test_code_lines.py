"""Single lines of code in many languages, beside lines of prose with the same words."""

import ast
import sysconfig
from pathlib import Path

import pytest

from embedway.selection.analysis import analyze
from embedway.selection.code_detection import detect_code
from embedway.selection.code_lines import is_code_line

CODE = r"""
import numpy as np
import os
import os, sys
import os.path
import argparse
from numpy import array
from . import views
from .models import *
from functools import lru_cache, partial
from x import (
from __future__ import annotations
import React from "react"
import React, { useState } from 'react';
import { useState } from "react";
import * as fs from 'fs'
import './style.css'
import java.util.List;
import static org.junit.Assert.*;
import "fmt"
import qualified Data.Map as M
import Data.List (sort)
import Foundation
package main
package com.example.app;
#include <stdio.h>
#include "util.h"
#define MAX 10
#pragma once
#ifdef DEBUG
#endif
using namespace std;
using System.Linq;
use std::collections::HashMap;
use serde::{Deserialize, Serialize};
use App\Models\User;
use strict;
mod parser;
namespace App\Http;
<?php
require 'json'
require_relative "lib/x"
gem 'rails', '~> 7.0'
library(dplyr)
const fs = require("fs")
const x = 1
let y = 2;
var total = 0
export default App;
export const add = (a, b) => a + b
module.exports = router
def f(x):
def bark
def add(a, b) -> int:
async def main():
class Foo:
class Foo(Bar):
class Foo extends Bar {
public class Main {
public static void main(String[] args)
function add(a, b) {
func main() {
func add(a int, b int) int {
fn main() {
fn add(a: i32, b: i32) -> i32
pub struct Point {
int main(void)
int x = 5;
std::vector<int> v;
def __init__(self):
@property
@app.route("/")
@Override
#[derive(Debug)]
x = 1
x = f(y)
df = pd.read_csv("a.csv")
y -= 1
self.name = name
a, b = b, a
x: int = 3
result = model.encode(texts)
print("hello")
print(x)
console.log(x)
System.out.println("hi");
fmt.Println("hi")
println!("hi")
printf("%d", x);
puts "hello"
echo $PATH
echo "hello"
return x + y
return self._mode
return None
return x;
return json.dumps(x)
raise ValueError
raise ValueError("bad")
throw new Error("x");
if x is None:
if x == 1:
elif self._debug:
else:
try:
except ValueError as e:
except Exception:
finally:
for i in range(10):
for x in items:
for (int i = 0; i < n; i++)
while True:
with open(path) as f:
if (x > 0) {
} else {
}
lambda x: x + 1
[x for x in y]
await fetch(url)
assert x == 1
del self.x
np.array([1, 2])
os.path.join(a, b)
SELECT * FROM users
SELECT name FROM users WHERE id = 1
select * from users;
select id, name from users where age > 3
INSERT INTO t VALUES (1, 2)
UPDATE users SET name = 'x' WHERE id = 1
CREATE TABLE t (id INT)
DROP TABLE users;
DELETE FROM users
pip install numpy
git commit -m "x"
git push
ls -la
cd ..
cd /tmp
npm run build
docker run -it ubuntu
sudo apt-get install vim
curl https://example.com
export PATH=$PATH:/bin
chmod +x a.sh
kubectl get pods
#!/bin/bash
if [ -f x ]; then
<div class="a">
<br/>
<p>Hello</p>
{"a": 1}
[section]
port = 8080
debug = true
color: red;
.menu { color: red; }
x <- c(1, 2)
$x = 5;
my $x = shift;
val x = 5
data class User(val name: String)
System.Console.WriteLine("x");
fun main() {
let mut x = 5;
match x {
switch (x) {
template <typename T>
module Foo where
main :: IO ()
(define x 5)
(defn f [x] (+ x 1))
SELECT count(*) FROM t
""".strip().splitlines()
PROSE = r"""
import duties rose
import duties
Import duties rose by three percent.
import tariffs
The class of 1990
class of 1990
class action lawsuit
for example, if you select from the menu
For example, if you select from the menu, the order is sent.
select from the menu
select one from the menu
Select all items from the list
return to sender
return home
Return the number of items.
return of the king
from time to time
from China, import duties are high
from Paris with love
import and export of goods
imports fell in May
use the library
use it or lose it
let it be
let us go
let x be a number
Let x = 5, and let y be the number of texts that were read in the last year.
require a permit
gem of a film
package deal
package holidays in Spain
public transport in London
private schools
static electricity
function of the liver
function words
the function f(x) is continuous
if in doubt:
if you are late, call me:
if it rains:
for use in schools:
for life in prison:
for more information:
while stocks last:
with love from Paris:
try again
try this:
else what
end of story
end
pass the salt
pass
break a leg
continue reading
continue
how do I use np.array?
What does pd.read_csv return?
How to install numpy with pip
how to import numpy in python
print money
print edition
raise awareness
raise the question
yield curve
yield strength of steel
assert your rights
make sure
make the bed
go home
find me
cat food
cat and dog
git is a tool
head of state
tail of the distribution
touch of evil
echo chamber
docker is popular
update users about the delay
UPDATE: the meeting is moved
DELETE your account
CREATE A TABLE OF CONTENTS
SELECT COMMITTEE ON FOREIGN AFFAIRS
FROM THE DESK OF THE PRESIDENT
WHERE ARE YOU
VALUES AND NORMS
data class
interface design
mod culture
module one
match of the day
case in point:
case 1: a patient with fever
using public transport
namespace
2 + 2 = 4
temperature: 20 degrees
Subject: Re: Friday
Note: this is important
Dear all;
Breakfast (included)
Smith (2020)
see Fig. 3(b)
e.g. this one
e.g.
U.S. economy
www.example.com
https://example.com/a?b=c
user@example.com
@alice thanks!
@everyone
#winning
#MeToo movement
# Heading
#1 in sales
$5 million
<3
-> see below
* item
- item one
[1] Smith, J. (2020). A paper.
(see above)
{x | x > 0}
"Hello," she said.
Import von Waren aus China
Import Export GmbH
Die Klasse von 1990
für alle Fälle
von der Schule nach Hause
de la import
une classe de 30 élèves
pour les élèves dans la classe:
importer des fichiers
package de bienvenue
Version 3.2 of the tool
3.14
12:30
2024-01-01
Q: why? A: because.
if not now, when?
with regard to x:
class trip:
class 5:
True
None
None of the above
self-esteem
return on investment
return flight
import prices
import substitution
from here on
use case
use cases;
let them eat cake;
drop table reservations
delete from the list
insert into the slot
the price is $5; the tax is $1;
Terms and conditions apply;
to be or not to be
end of chapter
begin
Finally: a good one
try: it works
while true
else
if needed:
if possible:
if not available:
if you use np.array:
for use in hospitals:
for life in prisons:
while waiting:
return home, please
return to U.S. soil
return the book "Dune" to the library
print this page (see below)
select one from menu
select the best from all of them
SELECT COMMITTEE REPORT FROM LONDON
DROP TABLE TENNIS
done
do
then
with one exception:
with love:
except Sundays:
case study:
match report:
raise children
raise Error rates
throw a ball
await further instructions
global warming
delete this
source of income
load balancing
include "all" of it
record high
object lesson
trait theory
function (mathematics)
var. speed
import Foundation of Spain
val d'Isère
const. temperature
auto repair
int. dept.
double room (with bath)
short story (1920)
long term (10 years)
char grill (new)
String quartet (Haydn)
float valve (brass)
void filling (concrete)
int main
Kaufen (neu)
Wann ist np.array schneller?
wenn x > 3 ist, dann
si x > 3 :
pour x dans y:
x-ray
A/B test
CO2 + H2O
p < 0.05
Table 1: results (mean)
Fig. 2(a): overview
yes/no
and/or
he/she
item: value
name: John
Name: John Smith
Tel: 555-1234
ISBN 978-3-16-148410-0
def. of terms
class of service
cd player
ls
curl up
wget rid of it
chmod
cd ..and more
create table reservations
alter table manners
""".strip().splitlines()
STANDARD_LIBRARY = Path(sysconfig.get_paths()["stdlib"])


@pytest.mark.parametrize("line", CODE)
def test_a_line_of_code_is_code(line):
    assert detect_code(line) == (True, True)


@pytest.mark.parametrize("line", PROSE)
def test_a_line_of_prose_is_no_code(line):
    assert detect_code(line) == (False, False)


def test_a_line_ends_where_its_comment_begins():
    assert is_code_line("import numpy as np  # arrays")
    assert is_code_line("use std::io; // input and output")
    assert not is_code_line("the import of goods # and services")


def test_texts_of_one_line_are_code_texts():
    analysis = analyze(["import numpy as np", "from x import y", "def f(x):"])
    assert (analysis.contains_code, analysis.code, analysis.languages) == (True, 1.0, ())


def test_a_long_line_is_read_in_little_time():
    for start in ("if " + "a_" * 2000, "import " + "a." * 5000, "return " + "x[" * 5000, "select " + "a, " * 5000):
        assert not is_code_line(start)


def single_lines(kinds):
    """Return the one-line statements of these kinds in the standard library's own files."""
    found = set()
    for path in sorted(STANDARD_LIBRARY.glob("*.py")):
        source = path.read_text(encoding="utf-8")
        lines = source.splitlines()
        found |= {
            lines[node.lineno - 1].strip()
            for node in ast.walk(ast.parse(source))
            if isinstance(node, kinds) and node.lineno == node.end_lineno
        }
    return found


def test_imports_of_the_standard_library_are_code():
    lines = single_lines((ast.Import, ast.ImportFrom))
    assert len(lines) > 300
    missed = [line for line in lines if ";" not in line and not detect_code(line)[0]]
    assert len(missed) <= 0.02 * len(lines), missed


def test_docstrings_of_the_standard_library_are_prose():
    lines = set()
    for path in sorted(STANDARD_LIBRARY.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
                first = (ast.get_docstring(node) or "").partition("\n")[0]
                lines |= {first} if first.endswith(".") else set()
    assert len(lines) > 1000
    found = [line for line in lines if is_code_line(line)]
    assert len(found) <= 0.002 * len(lines), found
