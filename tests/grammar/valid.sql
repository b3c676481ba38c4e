-- Every line is one statement that the grammar reads in structure; it must come back from to_sql unchanged in meaning.

-- verbs
GENERATE 'Summarise in one sentence: {body}' AS summary FROM 'tickets.parquet' WHERE priority = 'high' USING smollm2 WITH latency < 200ms INTO 'summaries.parquet'
GENERATE 'Write a haiku about indexes' USING smollm2
GENERATE 'Write a haiku about indexes'
GENERATE 'Hello' WITH max_tokens = 40, temperature = 0.7, seed = 7
GENERATE $$it's {name}$$ AS greeting FROM people
GENERATE E'line one\nline two {x}' FROM t
GENERATE body FROM t
GENERATE 'Translate to French: ' || body AS french FROM t LIMIT 10
GENERATE 'a {x}' RETURNING INTEGER AS n, 'b {y}' AS m, 'c {z}' FROM t
GENERATE 'How many people? {body}' RETURNING INTEGER FROM t
GENERATE 'Facts of {body}' RETURNING STRUCT(who VARCHAR, year INTEGER)[] AS facts FROM t ORDER BY id
GENERATE (SELECT max(prompt) FROM prompts) AS answer
GENERATE CASE WHEN lang = 'fr' THEN 'Résumez : {body}' ELSE 'Summarise: {body}' END FROM t
GENERATE $prompt FROM t
GENERATE "prompt column" FROM t
CLASSIFY body IN ('billing', 'bug', 'praise') AS topic FROM t
CLASSIFY body IN ['a', 'b'] FROM t
CLASSIFY body IN ARRAY['a', 'b'] FROM t
CLASSIFY body IN (SELECT label FROM labels) AS l FROM t USING m
CLASSIFY body IN $labels FROM t
CLASSIFY lower(a || b) IN {'billing': 'money matters', 'bug': 'faults'} AS topic FROM t
CLASSIFY t.body IN ('x', 'y') AS a, t.title IN ('p', 'q') AS b FROM tickets AS t
CLASSIFY 'is this spam: {body}' IN ('yes', 'no') FROM mails WHERE CLASSIFIED IS NULL
CLASSIFY (a || ' ' || b) IN ('x', 'y') FROM t
SCORE 'How urgent is this? {body}' BETWEEN 1 AND 5 AS urgency FROM t WHERE x BETWEEN 1 AND 2
SCORE body BETWEEN 0 AND 10 FROM t
SCORE 'a {x}' BETWEEN 1 AND 5, 'b {x}' BETWEEN -2 AND +2 AS b FROM t
SCORE (title || body) BETWEEN 1 AND 5 FROM t ORDER BY score DESC LIMIT 3
EXTRACT body RETURNING STRUCT(product VARCHAR, price DOUBLE) AS fields FROM t
EXTRACT body RETURNING STRUCT(stars INTEGER CHECK (stars BETWEEN 1 AND 5) DESCRIPTION 'how many', tags VARCHAR[], kind ENUM('a', 'b'), amount DECIMAL(10, 2)) FROM t
EXTRACT body RETURNING STRUCT(quote VARCHAR VERBATIM, note VARCHAR CHECK (length(note) <= 80) VERBATIM DESCRIPTION 'it''s short') FROM t
EXTRACT body RETURNING VARCHAR[] AS names FROM t
EXTRACT 'text' RETURNING DATE
EXTRACT (a || b) RETURNING STRUCT(at TIMESTAMP WITH TIME ZONE, total DOUBLE PRECISION, name CHARACTER VARYING) FROM t
EMBED body AS v FROM t
EMBED left(body, 80) AS v, title AS w FROM t
EMBED 'one text'
EMBED t.body FROM t INTO vectors
GENERATE 'x {a}' FROM t WHERE b GROUP BY ALL
GENERATE 'x {a}' FROM t QUALIFY row_number() OVER (ORDER BY a) < 4
GENERATE 'x {a}' FROM t USING SAMPLE 10%
GENERATE 'x {a}' FROM t ORDER BY a LIMIT 3 OFFSET 2 USING m
GENERATE 'x {a}' FROM a JOIN b USING (id) USING m
GENERATE 'x {a}' UNION ALL GENERATE 'y {a}'
(GENERATE 'x {a}' FROM t LIMIT 1) UNION ALL (GENERATE 'y {a}' FROM t LIMIT 1)
WITH t AS (SELECT 1 AS n) GENERATE 'count to {n}' FROM t
WITH t AS (FROM 'x.csv'), u AS (GENERATE 'x {a}' AS g FROM t) CLASSIFY g IN ('a', 'b') FROM u USING m
FROM (GENERATE 'x {a}' AS s FROM t) SELECT s, count(*) GROUP BY s

-- select with inference
SELECT id, AI_CLASSIFY(body, ['billing', 'bug', 'praise']) AS topic, AI_GENERATE('Summarise in one sentence: {body}') AS summary FROM 'tickets/*.parquet' WHERE created >= DATE '2026-01-01' AND AI_FILTER('{body} asks for a refund') ORDER BY AI_SCORE('How urgent is this? {body}', 1, 5) DESC LIMIT 20 USING smollm2 WITH latency < 200ms, quality >= 0.95
SELECT AI_GENERATE('hello')
SELECT AI_GENERATE('x {a}' RETURNING STRUCT(a INT, b VARCHAR[]), model => 'm', max_tokens => 3, details => true) FROM t
SELECT AI_GENERATE('x {a}', stop => ['.', '!'], top_p => 0.9, top_k => 40, min_p => 0.05, system => 'You are terse.') FROM t
SELECT AI_GENERATE('n: {a}' RETURNING INTEGER) + 1 FROM t
SELECT AI_GENERATE('x' RETURNING ENUM('a', 'b')) AS e
SELECT AI_CLASSIFY(body, ['a', 'b'], multi => true, instruction => 'by tone', examples => [('x', 'a'), ('y', 'b')], calibrate => true) FROM t
SELECT AI_CLASSIFY(body, (SELECT label FROM labels), multi => true) FROM t
SELECT AI_CLASSIFY(body, {'a': 'first', 'b': 'second'}).value FROM t
SELECT AI_CLASSIFY(body, ['a', 'b'], details => true).confidence AS sure FROM t
SELECT AI_CLASSIFY(body, list(DISTINCT topic)) FROM t GROUP BY body
SELECT AI_FILTER('{a} and {b}') AND NOT AI_FILTER('{c}') OR AI_FILTER('{d}') FROM t
SELECT AI_FILTER(body) FROM t
SELECT AI_FILTER(body || '?') IS NOT TRUE FROM t
SELECT AI_SCORE('x {a}') , AI_SCORE('y {a}', 1, 5), AI_SCORE(a, -1, 1) FROM t
SELECT AI_EXTRACT(body, STRUCT(a DOUBLE PRECISION, b TIMESTAMP WITH TIME ZONE, c MAP(VARCHAR, INT), d INT[3][]), instruction => 'x') FROM t
SELECT AI_EXTRACT(body, VARCHAR[]), AI_EXTRACT(body, DECIMAL(10, 2)), ai_extract(body, ['person', 'place']) FROM t
SELECT AI_EXTRACT(body, STRUCT(a VARCHAR)).a FROM t
SELECT AI_EXTRACT(body, UNION(num INTEGER, str VARCHAR)) FROM t
SELECT AI_EXTRACT(body, INT ARRAY), AI_EXTRACT(body, INT ARRAY[3]) FROM t
SELECT AI_EXTRACT(body RETURNING STRUCT(a VARCHAR)) FROM t
SELECT AI_EMBED(body), AI_SIMILARITY(a, b), AI_SIMILARITY(AI_EMBED(a), AI_EMBED('q')) > 0.5 FROM t
SELECT AI_AGG(body), AI_AGG(body, 'list the top three complaints'), AI_SUMMARIZE_AGG(body) FROM t GROUP BY product
SELECT AI_AGG(body ORDER BY created) FILTER (WHERE ok) FROM t
SELECT AI_AGG(DISTINCT body) FROM t
SELECT sum(AI_COUNT_TOKENS(body)) FROM t
SELECT product, AI_AGG('Summarise {body}') FROM t GROUP BY product HAVING AI_FILTER('x {product}') ORDER BY 1
SELECT CASE WHEN AI_FILTER('x {a}') THEN AI_GENERATE('y {a}') ELSE 'none' END FROM t
SELECT CASE AI_CLASSIFY(a, ['x', 'y']) WHEN 'x' THEN 1 WHEN 'y' THEN 2 END FROM t
SELECT COALESCE(summary, AI_GENERATE('Summarise {body}')) FROM t
SELECT * FROM t WHERE AI_FILTER('x {a}') OR (b AND AI_FILTER('y {a}')) IS NOT TRUE
SELECT * FROM t WHERE NOT AI_FILTER('z {a}') AND a IN (SELECT b FROM u WHERE u.c = t.c)
SELECT * FROM t QUALIFY row_number() OVER (PARTITION BY g ORDER BY AI_SCORE('x {a}') DESC) <= 3
SELECT list_transform(l, lambda x: AI_GENERATE('x' || x)) FROM t
SELECT [AI_GENERATE('{x}') FOR x IN l IF x > 1] FROM t
SELECT [AI_GENERATE('{x} {i}') FOR x, i IN l] FROM t
SELECT t.*, AI_GENERATE('{a} and {b}') FROM a JOIN b ON AI_FILTER('{a.x} matches {b.x}')
SELECT upper(AI_GENERATE('x {a}'))[1:3]::VARCHAR || 'y' FROM t
SELECT count(*) FROM t GROUP BY AI_CLASSIFY(body, ['a', 'b'])
SELECT AI_CLASSIFY(body, ['a', 'b']) AS c, count(*) FROM t GROUP BY c ORDER BY c
SELECT AI_CLASSIFY(body, ['a', 'b']) AS c, count(*) FROM t GROUP BY 1 HAVING count(*) > 1
SELECT DISTINCT AI_CLASSIFY(body, ['a', 'b']) FROM t
SELECT (SELECT AI_GENERATE('{u.x}') FROM u WHERE u.id = t.id) FROM t
SELECT EXISTS (SELECT 1 FROM u WHERE AI_FILTER('{u.x} is {t.y}')) FROM t
SELECT a FROM t WHERE b > ALL (SELECT AI_SCORE('{x}') FROM u)
SELECT a FROM t WHERE (a, AI_CLASSIFY(b, ['x', 'y'])) IN ((1, 'x'), (2, 'y'))
SELECT a, AI_FILTER('x {a}') FROM t ORDER BY 2, AI_SCORE('y {a}') NULLS LAST
SELECT AI_FILTER('x') FROM t LIMIT (SELECT 5)
SELECT AI_FILTER('x') FROM t LIMIT 10%
SELECT AI_FILTER('x') FROM t LIMIT 10 PERCENT
SELECT AI_FILTER('x') FROM t OFFSET 5 ROWS
SELECT AI_FILTER('x') FROM t OFFSET 5 LIMIT 2
SELECT AI_FILTER('x') FROM t LIMIT $n OFFSET $m
SELECT urgent(body), AI_FILTER('x') FROM t
VALUES (AI_GENERATE('a')), ('b')
SELECT AI_FILTER('x') UNION VALUES (''), ((SELECT 1)), ((SELECT 2))
VALUES ((SELECT 1), 2), (AI_GENERATE('a'), 3)
VALUES ((SELECT 1)), (AI_GENERATE('a'))
VALUES (AI_GENERATE('a'), 1), ('b', 2) ORDER BY 1 LIMIT 1

-- the vendors' forms
SELECT AI_COMPLETE('model', 'prompt {a}') FROM t
SELECT AI_COMPLETE(model => 'm', prompt => 'x', model_parameters => {'temperature': 0.7, 'max_tokens': 10}) FROM t
SELECT AI_COMPLETE('m', PROMPT('Classify {0} in the context of {1}', a, b), response_format => {'type': 'json', 'schema': {'properties': {'a': {'type': 'string'}}}}, show_details => TRUE) FROM t
SELECT * FROM t WHERE AI_FILTER(PROMPT('{0} asks for a refund', body))
SELECT * FROM a JOIN b ON AI_FILTER(PROMPT('Does {0} match {1}?', a.x, b.y))
SELECT AI_CLASSIFY(body, ['billing', 'bug'], {'output_mode': 'multi', 'task_description': 'by topic', 'examples': [{'input': 'x', 'labels': ['bug'], 'explanation': 'y'}]}) FROM t
SELECT AI_CLASSIFY(body, [{'label': 'a', 'description': 'first'}, {'label': 'b', 'description': 'second'}]) FROM t
SELECT team, AI_AGG(body, 'list the top three complaints') FROM t GROUP BY team
SELECT AI_EXTRACT(body, {'name': 'What is the name?', 'age': 'How old?'}, scores => TRUE) FROM t
SELECT AI_EXTRACT(text => body, responseFormat => ['name', 'city']) FROM t
SELECT AI_EXTRACT(text => body, responseFormat => {'name': 'Who?'}) FROM t
SELECT AI_COUNT_TOKENS('ai_classify', body) FROM t
SELECT AI_SIMILARITY(a, b, {'model': 'm'}) FROM t
SELECT AI.GENERATE('x {a}'), AI.IF('x {b}'), ai . score ('x', 1, 5) FROM t
SELECT * FROM t WHERE AI.IF(('this review is very negative: ', review), endpoint => 'm', optimization_mode => 'MINIMIZE_COST')
SELECT AI.CLASSIFY(body, categories => ['tech', 'sport'], output_mode => 'multi') FROM t
SELECT AI.CLASSIFY(body, categories => [('tech', 'computers'), ('sport', 'games')]) FROM t
SELECT * FROM t ORDER BY AI.SCORE(('urgency 1 to 10: ', body)) DESC LIMIT 5
SELECT AI.GENERATE(('Describe ', a), connection_id => 'x', output_schema => 'legs INT64, herbivore BOOL').legs FROM t
SELECT AI.EMBED(body, endpoint => 'm').result, AI.SIMILARITY(content1 => a, content2 => b, endpoint => 'm') FROM t
SELECT ai_query('endpoint', CONCAT('Summarise: ', c), responseFormat => '{"type":"json_schema"}', modelParameters => {'max_tokens': 10}, failOnError => false) AS q FROM t
SELECT ai_query('model', 'prompt ' || a) FROM t
SELECT ai_classify(content, ARRAY('urgent', 'not urgent')) FROM t
SELECT ai_extract(content, ARRAY('person', 'location')) FROM t
SELECT ai_gen('Write a tagline for ' || name) FROM products
SELECT ai_classify(content, ['urgent', 'not urgent']) AS c, ai_gen('x') FROM t

-- USING, WITH, INTO
GENERATE 'x' USING 'hf:Qwen/Qwen3-0.6B'
GENERATE 'x' USING 'weights.gguf'
GENERATE 'x' USING './dir'
GENERATE 'x' USING ANY (a, b, c)
GENERATE 'x' USING ANY (a, 'hf:b/c' ADAPTER 'd')
GENERATE 'x' USING CASCADE (small, large)
GENERATE 'x' USING cascade
GENERATE 'x {a}' FROM t USING (model_name)
GENERATE 'x {a}' FROM t USING (CASE WHEN hard THEN 'large' ELSE 'small' END)
GENERATE 'x' USING base ADAPTER 'support-v3'
GENERATE 'x' FROM t USING base ADAPTER (team)
GENERATE 'x' USING large DRAFT small WITH best_effort = true
GENERATE 'x' USING large ADAPTER a DRAFT small
GENERATE 'x' USING "a model" WITH latency < 1s
GENERATE 'x' INTO 'o.parquet' WITH latency < 200ms USING m
GENERATE 'x' WITH latency < 200ms INTO out_table USING 'hf:Qwen/Qwen3-0.6B'
GENERATE 'x' WITH latency p99 < 1s, ttft < 80ms, tpot < 20ms, throughput > 50 rows/s, deadline < 10min, cost < 2 USD, quality >= 95% OF 'bf16' CONFIDENCE 0.95, memory < 16GiB, budget < 1000000 tokens, MINIMIZE cost
GENERATE 'x' WITH quality >= 0.95, quality token >= 0.98
GENERATE 'x' WITH quality >= 0.9 OF bf16, quality >= 0.9 CONFIDENCE 90%
GENERATE 'x' WITH MAXIMIZE throughput, temperature = 0.7, stop = ['a', 'b'], seed = -1, on_error = 'fail', reject_limit = 5%, kv_cache = int8, deterministic = true
GENERATE 'x' WITH MINIMIZE latency, MAXIMIZE quality
GENERATE 'x' WITH minimize = 1, maximize = 2, latency <= 1h
GENERATE 'x' WITH throughput >= 50 tokens/s, latency < 0.2 s, memory <= 900MiB, tpot <= 900us
GENERATE 'x' WITH stop = [], on_overflow = 'truncate_middle', rejects = 'bad.parquet', row_timeout = 5s
GENERATE 'x' WITH max_tokens = $n, seed = NULL, prefix_cache = false
GENERATE 'x' WITH devices = 2, tensor_parallel = 2, batch_size = 64, quantization = 'int8'
GENERATE 'x' INTO results
GENERATE 'x' INTO main.results
GENERATE 'x' INTO 's3://bucket/out.parquet'
GENERATE 'x' INTO 'out/' PARTITION BY (year, month)
GENERATE 'x' INTO 'out/' PARTITION BY (year) (FORMAT parquet, COMPRESSION zstd)
GENERATE 'x' INTO 'o.csv' (HEADER, DELIMITER ';', NULLSTR = 'NA')
SELECT a FROM t USING smollm2
SELECT a FROM t WITH latency < 1s
SELECT a FROM t INTO 'o.parquet'
SELECT a FROM t JOIN u USING (id) INTO 'o.parquet'
FROM t INTO copy_of_t
WITH a AS (SELECT 1) SELECT * FROM a INTO b
(SELECT a FROM t) UNION (SELECT b FROM u) INTO v
VALUES (1), (2) INTO two
TABLE t USING m
SELECT AI_FILTER('x') FROM t EXCEPT TABLE s.u
TABLE s.t UNION ALL SELECT AI_FILTER('x')
SELECT AI_FILTER('x {a}') FROM t JOIN u USING (id) USING smollm2
SELECT AI_FILTER('x {a}') FROM t JOIN u USING (id) USING (model)
SELECT AI_FILTER('x {a}') FROM t USING SAMPLE 10% USING sample WITH seed = 1
SELECT AI_FILTER('x {a}') FROM t USING SAMPLE 50 ROWS
SELECT AI_FILTER('x {a}') FROM t USING SAMPLE reservoir(50 ROWS) USING m
SELECT AI_FILTER('x {a}') FROM t USING SAMPLE bernoulli(10%)
SELECT AI_FILTER('x {a}') FROM unnest([1]) WITH ORDINALITY AS u(a, n) WITH latency < 1s
SELECT AI_FILTER('x {a}'), a::TIMESTAMP WITH TIME ZONE FROM t WITH latency < 1s
SELECT g FROM (SELECT AI_GENERATE('{x}') AS g FROM t USING small) USING large
SELECT g FROM (SELECT a AS g FROM t USING small) USING large
WITH g AS (GENERATE 'x {a}' AS s FROM t USING small) SELECT AI_FILTER('{s}') FROM g USING large
SELECT (GENERATE 'x' USING small), AI_FILTER('y') USING large

-- statements
EXPLAIN SELECT AI_FILTER('x {a}') FROM t
EXPLAIN GENERATE 'x' FROM t USING m WITH latency < 1s
EXPLAIN ANALYZE GENERATE 'x' FROM t
EXPLAIN (FORMAT json, CANDIDATES, REWRITES, ON 'h100:8') SELECT AI_FILTER('x {a}') FROM t USING m
EXPLAIN (ANALYZE, FORMAT html) GENERATE 'x'
EXPLAIN ANALYZE (FORMAT text) SELECT AI_FILTER('x')
EXPLAIN (CANDIDATES) SELECT a, b FROM t WHERE x IN (1, 2)
EXPLAIN (REWRITES) GENERATE 'x'
EXPLAIN (ON 'h100') SELECT AI_FILTER('x')
EXPLAIN (ON 'l40s', ROWS 100_000_000) SELECT AI_FILTER('x')
EXPLAIN (SELECT 1)
EXPLAIN SELECT 1
EXPLAIN ANALYZE SELECT a FROM t
EXPLAIN WITH a AS (SELECT 1) SELECT * FROM a
EXPLAIN FROM t
EXPLAIN CLASSIFY body IN ('a', 'b') FROM t
CREATE MODEL fast FROM 'hf:Qwen/Qwen3-0.6B'
CREATE OR REPLACE MODEL fast FROM 'weights.gguf' WITH (quantization = 'int8', devices 2)
CREATE MODEL IF NOT EXISTS fast FROM './dir'
CREATE ADAPTER support FOR smollm2 FROM './adapters/support'
CREATE OR REPLACE ADAPTER support FOR 'hf:a/b' FROM 'x'
DROP MODEL fast
DROP MODEL IF EXISTS fast
DROP ADAPTER support
SHOW MODELS
SHOW ADAPTERS
SHOW SETTINGS
SHOW RUNS
SHOW HARDWARE
SHOW FUNCTIONS
DESCRIBE MODEL smollm2
DESCRIBE MODEL 'hf:Qwen/Qwen3-0.6B'
DESCRIBE SELECT AI_FILTER('x {a}') AS f FROM t
DESCRIBE GENERATE 'x' AS y FROM t
SUMMARIZE SELECT AI_SCORE('x {a}') AS s FROM t USING m
CREATE TABLE topics AS SELECT id, AI_CLASSIFY(body, ['a', 'b']) AS c FROM t
CREATE OR REPLACE TEMP TABLE x AS SELECT *, AI_CLASSIFY(body, ['a', 'b']) AS c FROM t USING m WITH cost < 2 USD
CREATE TEMPORARY TABLE IF NOT EXISTS x(a, b) AS SELECT 1, AI_FILTER('x')
CREATE VIEW v AS GENERATE 'x {a}' AS s FROM t
CREATE OR REPLACE VIEW s.v(a) AS SELECT AI_FILTER('x')
CREATE VIEW v AS (SELECT AI_FILTER('x') FROM t) USING m
CREATE FUNCTION topic(x) AS AI_CLASSIFY(x, ['a', 'b'])
CREATE OR REPLACE MACRO urgent(x) AS AI_FILTER('{x} needs an answer today')
CREATE TEMP FUNCTION f() AS AI_GENERATE('x')
CREATE FUNCTION f(x, n := 3, m := 'a') AS AI_SCORE('{x}', 0, n)
CREATE FUNCTION IF NOT EXISTS s.f(x) AS (AI_FILTER(x) OR x IS NULL)
INSERT INTO t SELECT AI_GENERATE('x')
INSERT INTO t(a, b) SELECT a, AI_GENERATE('{a}') FROM u USING m
INSERT INTO t BY NAME GENERATE 'x {a}' AS s FROM u
COPY (SELECT AI_GENERATE('x {a}') AS s FROM t USING m WITH latency < 1s) TO 'o.parquet' (FORMAT parquet, COMPRESSION zstd)
COPY (EMBED body AS v FROM t) TO 'o.parquet'
COPY (SELECT AI_FILTER('x')) TO 'out' (FORMAT parquet, PARTITION_BY (a, b), OVERWRITE true)
EVALUATE SELECT AI_CLASSIFY(body, ['a', 'b']) AS c FROM t USING small AGAINST label
EVALUATE SELECT AI_CLASSIFY(body, ['a', 'b']) AS c FROM t AGAINST (SELECT AI_CLASSIFY(body, ['a', 'b']) FROM t USING large) METRICS (accuracy, f1)
EVALUATE CLASSIFY body IN ('a', 'b') FROM t AGAINST t.gold METRICS (f1)
EVALUATE CLASSIFY body IN ('a', 'b') FROM t USING m AGAINST (SELECT gold FROM labels ORDER BY id) METRICS (f1)
EVALUATE SELECT a FROM t AGAINST b
EVALUATE (CLASSIFY body IN ('a', 'b') FROM t) AGAINST gold
SET default_model = 'smollm2'
SET default_model TO smollm2
SET memory_limit = 16GiB
SET latency = 200ms
SET dql.cache = true
SET stop = ['a', 'b']
SET enable_progress_bar = on
RESET default_model

-- words that are not reserved
SELECT model, score, latency, format, cost, quality, memory, budget, AI_FILTER('x') FROM t
SELECT generate, classify, embed, extract, evaluate, adapter, draft, into_, metrics, AI_FILTER('x') FROM t
SELECT a model, b score, c latency, d rows, e range, f nulls, g first, h against, AI_FILTER('x') FROM t
SELECT t.using, t.with, t.select, AI_FILTER('x') FROM t
SELECT a AS using, b AS with, c AS order, d AS 'text', AI_FILTER('x') AS select FROM t
SELECT score(x), (score), (score + 1), (embed), (generate - 1), extract(year FROM d), AI_FILTER('x') FROM t
SELECT (score NOT IN (1, 2)), (extract IS NULL), (embed), (classify LIKE 'x'), AI_FILTER('x') FROM (score JOIN extract ON true)
SELECT interval, date, time, timestamp, map, exists, values, columns, struct, AI_FILTER('x') FROM t
SELECT left(s, 1), right(s, 1), replace(s, 'a', 'b'), format('{}', s), AI_FILTER('x') FROM t
SELECT unbounded, current, grouping, filter, over, within, ties, AI_FILTER('x') FROM t
SELECT `a b`, `x``y`.`select`, "AI_FILTER"('x') FROM `from`
SELECT x'FF', b'101', 1_000.5e1_0, 1.5, AI_FILTER('x') FROM t ORDER BY a ASC
SELECT "left", "Interval", "exists"(1), "AI_FILTER"('x') FROM t
SELECT AI_FILTER('x') FROM model JOIN score ON model.id = score.model
SELECT AI_FILTER('x') FROM model model LEFT JOIN score score USING (id)
SELECT ai.x, AI_FILTER('y') FROM ai
SELECT "select", "a""b", AI_FILTER('x') FROM "from"
SELECT größe, 名前, naïve, AI_FILTER('{größe}') FROM tabelle
SELECT _a, a1, a$b, A_B, AI_FILTER('x') FROM t
WITH model AS (SELECT 1 AS a), score AS (SELECT 2 AS b) SELECT AI_FILTER('x {a}') FROM model, score
SELECT sum(x) FILTER (WHERE y) OVER w, sum(filter), AI_FILTER('x') FROM t WINDOW w AS (PARTITION BY rows ORDER BY range)
SELECT latency FROM runs USING latency WITH latency < 1s
CLASSIFY score IN ('a', 'b') AS score FROM score
GENERATE generate FROM generate USING generate
SELECT AI_FILTER('x') FROM t SELECT_ WHERE a

-- expressions
SELECT AI_FILTER('x'), a + b * c - d / e % f // g ^ h ** i, -a, +b, ~c, NOT d, a || b, a & b | c << 2 >> 1 FROM t
SELECT AI_FILTER('x'), - -1, + -a, NOT NOT a, -(-a), ~-a, -a::INT, -(a::INT) FROM t
SELECT AI_FILTER('x'), a = b, a == b, a <> b, a != b, a < b, a <= b, a >= b, a > b FROM t
SELECT AI_FILTER('x'), a IS NULL, a IS NOT NULL, a ISNULL, a NOTNULL, a NOT NULL, a IS TRUE, a IS NOT FALSE, a IS UNKNOWN, a IS NOT DISTINCT FROM b, a IS DISTINCT FROM NULL FROM t
SELECT AI_FILTER('x'), a = b IS NULL, a = b NOT NULL, (a = b) = c, NOT a = b FROM t
SELECT AI_FILTER('x'), a BETWEEN 1 AND 2 AND b NOT BETWEEN 3 + 1 AND 4, a IN (1, 2), a NOT IN (SELECT b FROM u), a IN [1, 2], a IN b, a IN (1), a IN $l FROM t
SELECT AI_FILTER('x'), a LIKE 'x%' ESCAPE '!', a NOT ILIKE 'y', a GLOB 'z*', a SIMILAR TO '(b|c)', a NOT SIMILAR TO 'd', a ~ 'r', a !~ 'r', a ~~ 'x', a !~~* 'y' FROM t
SELECT AI_FILTER('x'), CAST(a AS INTEGER), TRY_CAST(a AS DECIMAL(10, 2)), a::INT, a::VARCHAR[], a::STRUCT(x INT, y VARCHAR)[], a::DOUBLE PRECISION, a::INT::VARCHAR, a::UNION(x INT, y VARCHAR), a::ENUM('a', 'b'), a::MAP(INT, VARCHAR)[2][], a::s.mytype FROM t
SELECT AI_FILTER('x'), a::TIMESTAMP WITHOUT TIME ZONE, a::TIME WITH TIME ZONE, a::TIMESTAMP(3), a::BIT VARYING FROM t
SELECT AI_FILTER('x'), DATE '2020-01-01', TIMESTAMP '2020-01-01 00:00:00', INTERVAL '1 day', INTERVAL 1 DAY, INTERVAL (a + 1) HOURS, INTERVAL '1' MONTH AS day, b - INTERVAL 7 DAYS, DATE'2020-01-01' FROM t
SELECT AI_FILTER('x'), [1, 2, 3], [], {'a': 1, b: [2]}, {}, MAP {'k': 1}, MAP {}, (1, 2), (1,), (), ROW(1, 2), ARRAY[1, 2], ARRAY(SELECT a FROM u), {'a': 1,}, [1,] FROM t
SELECT AI_FILTER('x'), a[1], a[1:2], a[:2], a[1:], a[:], a[1:10:2], a[::2], a[-1], a.b.c, a['k'], a.f(1).g(), (s).x, f(x).y[1].z, a[b[1]] FROM t
SELECT AI_FILTER('x'), s.f(x), s.t.f(x), (x).f(1), 'abc'.upper(), [1].len(), {'a': 1}.a, x[1].f(y).z FROM t
SELECT AI_FILTER('x'), list_transform(l, x -> x + 1), list_reduce(l, (a, b) -> a + b), list_filter(l, lambda x, i: x > i), j->'a', j->>'$.b', j->'a'->'b' = 'c' FROM t
SELECT AI_FILTER('x'), CASE a WHEN 1 THEN 'x' WHEN 2 THEN 'y' ELSE 'z' END, CASE WHEN a > 1 THEN 1 END, CASE WHEN a THEN CASE WHEN b THEN 1 END END, NULLIF(a, b) FROM t
SELECT AI_FILTER('x'), sum(a) OVER (PARTITION BY b, c ORDER BY d DESC NULLS LAST ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW), rank() OVER w, lag(a IGNORE NULLS) OVER (w ROWS 3 PRECEDING), first(a RESPECT NULLS) OVER () FROM t WINDOW w AS (ORDER BY a), v AS (PARTITION BY b)
SELECT AI_FILTER('x'), avg(x) OVER (ORDER BY t RANGE BETWEEN INTERVAL 3 DAYS PRECEDING AND 1 FOLLOWING EXCLUDE CURRENT ROW), sum(a) OVER (GROUPS BETWEEN 1 PRECEDING AND UNBOUNDED FOLLOWING EXCLUDE TIES), sum(b) OVER (ROWS CURRENT ROW EXCLUDE NO OTHERS), sum(c) OVER (ROWS a + 1 PRECEDING EXCLUDE GROUP) FROM t
SELECT AI_FILTER('x'), string_agg(a, ', ' ORDER BY b DESC NULLS FIRST), percentile_cont(0.5) WITHIN GROUP (ORDER BY a), count(*) FILTER (WHERE a > 1), count(*) FILTER (a > 1) FROM t GROUP BY ALL
SELECT AI_FILTER('x'), extract(year FROM d), substring(s FROM 2 FOR 3), substring(s FROM 2), trim(BOTH 'x' FROM s), trim(LEADING FROM s), trim('x' FROM s), trim(TRAILING 'y' FROM s), position('a' IN s), overlay(s PLACING 'x' FROM 2 FOR 1), overlay(s PLACING 'x' FROM 2) FROM t
SELECT AI_FILTER('x'), d AT TIME ZONE 'UTC', d AT TIME ZONE 'UTC' AT TIME ZONE 'CET', s COLLATE NOCASE, s COLLATE NOCASE.NOACCENT FROM t
SELECT AI_FILTER('x'), struct_pack(a := 1, b => 2), f(DISTINCT a), f(ALL a), f(), f(a, ORDER_ => 1), a = ANY([1, 2]), a = SOME([1]), b > ALL (SELECT x FROM u) FROM t
SELECT AI_FILTER('x'), $name, $other, #1 FROM t
SELECT AI_FILTER('x'), ?, ? FROM t
SELECT AI_FILTER('x'), $1, $2 FROM t
SELECT AI_FILTER('x'), EXISTS (SELECT 1 FROM u WHERE u.a = t.a), NOT EXISTS (FROM u), (SELECT max(x) FROM u), ((SELECT 1)), ((SELECT 1) + 2), f((SELECT 1)), ((((a)))) FROM t
SELECT AI_FILTER('x'), x: a + 1, 1_000, .5, 1., 1e3, 1.5e-3, 'it''s', E'a\'b', E'\x41\u00e9\t', $$a ' b$$, $q$ a $$ ( $q$, '' FROM t
SELECT AI_FILTER('x'), true, FALSE, null, DEFAULT FROM t
SELECT AI_FILTER('x'), (a OR b) AND c, a OR b AND c, NOT (a AND b), (NOT a) AND b, a AND (b AND c) FROM t
SELECT AI_FILTER('x'), a || b LIKE 'c%', a + b = c, a = b AND c = d, a->'b' = 'c', a IN (1) = b FROM t
SELECT AI_FILTER('x'), lambda x: x + 1, list_transform(l, lambda x: lambda_y(x)) FROM t
SELECT AI_FILTER('x'), a @> b, a <@ b, a && b, a ^@ b, a <=> b, a <-> b, @a FROM t
SELECT AI_FILTER('x'), grouping(a), {'k': lambda_}, [a, b,], f(a, b), x.y.z::INT AS n, (a).b, DEFAULT_ FROM t AS "T"("c 1", c2)

-- star
SELECT AI_FILTER('x'), * EXCLUDE (a, b) REPLACE (c + 1 AS c), t.* EXCLUDE d RENAME (e AS f) FROM t
SELECT AI_FILTER('x'), * EXCEPT (a), * EXCLUDE (t.a, b), * RENAME (a AS b, t.c AS d), * REPLACE (AI_GENERATE('{a}') AS a) FROM t
SELECT AI_FILTER('x'), * LIKE 'a%', * NOT LIKE 'b%', * SIMILAR TO 'c', t.* GLOB 'x*' FROM t
SELECT AI_FILTER('x'), COLUMNS('a.*'), COLUMNS(* EXCLUDE x), COLUMNS(lambda c: c LIKE 'a%'), COUNT(*), COUNT(DISTINCT a), COUNT(t.*) FROM t

-- FROM
SELECT AI_FILTER('x') FROM a, b, c AS d, (SELECT 1) e(f), (VALUES (1, 2), (3, 4)) v(x, y), 'f.csv' g, read_parquet('x/*', hive_partitioning = true, union_by_name := false) p, range(10) r(i)
SELECT AI_FILTER('x') FROM a JOIN b ON a.x = b.x LEFT JOIN c USING (x, y) RIGHT OUTER JOIN d ON true FULL JOIN e ON e.z IN (1) INNER JOIN f USING (z)
SELECT AI_FILTER('x') FROM a CROSS JOIN f NATURAL JOIN g NATURAL LEFT JOIN h POSITIONAL JOIN q
SELECT AI_FILTER('x') FROM a SEMI JOIN i ON true ANTI JOIN j USING (k) ASOF JOIN l ON m >= n ASOF LEFT JOIN o USING (p)
SELECT AI_FILTER('x') FROM (a JOIN b USING (id)) LEFT JOIN LATERAL (SELECT a.x) l ON true, LATERAL unnest(a.y) AS u(v), db.main.t TABLESAMPLE 10%
SELECT AI_FILTER('x') FROM ((a JOIN b USING (id)) JOIN c USING (id)) AS abc
SELECT AI_FILTER('x') FROM a JOIN (b JOIN c USING (x)) USING (y)
SELECT AI_FILTER('x') FROM t TABLESAMPLE reservoir(10 ROWS), u AS v TABLESAMPLE 5 PERCENT
SELECT AI_FILTER('x') FROM a : t, b : (SELECT 1), c : 'f.csv'
SELECT AI_FILTER('x') FROM LATERAL (SELECT 1) AS l, LATERAL (SELECT AI_FILTER('y')) AS m
SELECT AI_FILTER('x') FROM 'https://example.com/x.csv', 's3://b/k/*.parquet' AS s
SELECT AI_FILTER('x') FROM a JOIN b ON AI_FILTER('{a.x} is {b.y}') AND a.k = b.k WHERE a.z > 1
SELECT AI_FILTER('x') FROM generate_series(1, 10) WITH ORDINALITY AS g(i, n)

-- clauses of SELECT
SELECT DISTINCT ON (a, b) c, AI_FILTER('x') FROM t ORDER BY ALL LIMIT 10 OFFSET 5
SELECT ALL a, AI_FILTER('x'), FROM t ORDER BY a ASC NULLS FIRST, b DESC, 3 OFFSET 2
SELECT AI_FILTER('x') FROM t ORDER BY ALL DESC NULLS LAST
SELECT a, AI_FILTER('x') FROM t GROUP BY GROUPING SETS ((a), (a, b), ()), ROLLUP (c), CUBE (d, e) HAVING count(*) > 1
SELECT a, AI_FILTER('x') FROM t GROUP BY a, b + 1, (c, d), ()
SELECT AI_FILTER('x') WHERE 1 = 1
FROM t SELECT a, AI_FILTER('x') WHERE b LIMIT 1
FROM t WHERE AI_FILTER('x {a}')
FROM t, u WHERE t.a = u.a AND AI_FILTER('x {t.a}') ORDER BY 1
FROM (FROM t SELECT AI_GENERATE('{x}') AS g) SELECT g, count(*) GROUP BY g

-- CTEs, set operations, nesting
WITH a AS (SELECT 1 AS x), b(y, z) AS MATERIALIZED (SELECT 2, 3), c AS NOT MATERIALIZED (SELECT AI_FILTER('q') AS f FROM a) SELECT * FROM a, b, c
WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 5) SELECT AI_GENERATE('{n}') FROM r
WITH RECURSIVE r(n, m) USING KEY (n) AS (SELECT 1, 2 UNION SELECT n + 1, m FROM r) SELECT AI_GENERATE('{n}') FROM r
WITH g AS (GENERATE 'x {a}' AS s FROM t WHERE b) SELECT * FROM g USING m
WITH d AS (DELETE FROM t RETURNING *) SELECT AI_FILTER('{a}') FROM d
WITH a AS (WITH b AS (SELECT AI_FILTER('x') AS f) SELECT * FROM b) SELECT * FROM a
SELECT AI_FILTER('x') FROM t UNION ALL SELECT b FROM u INTERSECT SELECT c FROM v EXCEPT SELECT d FROM w ORDER BY 1 LIMIT 3
SELECT AI_FILTER('x') UNION SELECT b UNION ALL SELECT c UNION BY NAME SELECT d UNION ALL BY NAME SELECT e
SELECT AI_FILTER('x') INTERSECT ALL SELECT b INTERSECT SELECT c EXCEPT ALL SELECT d
(SELECT AI_FILTER('x') FROM t LIMIT 1) UNION ALL BY NAME (SELECT b FROM u ORDER BY c) UNION DISTINCT (VALUES (1)) ORDER BY 1
((SELECT AI_FILTER('x')) UNION (SELECT 1)) EXCEPT (SELECT 2)
(SELECT AI_FILTER('x'))
((SELECT AI_FILTER('x')))
SELECT a FROM (SELECT AI_FILTER('x') AS a FROM (SELECT * FROM t PIVOT (sum(x) FOR y IN (1, 2))) UNION ALL (SELECT 1)) q
SELECT a FROM ((SELECT AI_FILTER('x') AS a) UNION (SELECT 2)) q WHERE a IN (SELECT AI_SCORE('y') FROM u)
SELECT (GENERATE 'x'), (SCORE 'y' BETWEEN 1 AND 5), a IN (CLASSIFY b IN ('c') FROM d) FROM t
SELECT AI_FILTER('{x}') FROM (PIVOT cities ON year USING sum(population))
SELECT AI_FILTER('{x}') FROM (DESCRIBE t), (SUMMARIZE u), (SHOW TABLES)
SELECT AI_FILTER('{x}') FROM (TABLE t), (FROM u), (WITH a AS (SELECT 1) SELECT * FROM a)
SELECT AI_FILTER('{x}') FROM (SELECT a /* keep ' this */ FROM t /* and this */)

-- comments and white space
SELECT AI_FILTER('x') /* c /* nested ' */ ( */ FROM t
/* first */ GENERATE 'x' /* last */
GENERATE	'x'	AS	y
SELECT AI_FILTER('x; y'), ';', (SELECT ';')

-- what people ask
SELECT id, subject, AI_CLASSIFY(body, ['billing', 'bug', 'feature', 'praise']) AS topic FROM 'tickets.csv' ORDER BY id
SELECT topic, count(*) AS n, avg(length(body)) AS chars FROM (SELECT body, AI_CLASSIFY(body, ['billing', 'bug']) AS topic FROM tickets) GROUP BY topic ORDER BY n DESC
SELECT customer, AI_AGG(body, 'What does this customer want?') AS wants FROM tickets WHERE created > now() - INTERVAL 30 DAYS GROUP BY customer HAVING count(*) >= 3
SELECT t.id, p.name FROM tickets AS t JOIN products AS p ON AI_FILTER('The text {t.body} is about {p.name}') USING smollm2
SELECT id FROM tickets WHERE AI_FILTER('{body} mentions a competitor') AND priority IN ('high', 'urgent') LIMIT 5
SELECT id, AI_SCORE('How angry is this? {body}', 1, 5) AS anger FROM tickets WHERE channel = 'email' ORDER BY anger DESC NULLS LAST LIMIT 10
SELECT name, AI_GENERATE('Write a one-line docstring for {signature}') AS doc FROM 'functions.parquet' WHERE doc IS NULL INTO 'docs.parquet'
WITH hot AS (SELECT * FROM tickets WHERE AI_FILTER('{body} is urgent')) SELECT customer, count(*) FROM hot GROUP BY customer ORDER BY 2 DESC
SELECT id, (AI_EXTRACT(body, STRUCT(product VARCHAR, price DOUBLE, currency ENUM('EUR', 'USD')))).price * 1.2 AS gross FROM receipts
SELECT review, AI_CLASSIFY(review, {'positive': 'the writer liked it', 'negative': 'the writer did not'}, details => true).confidence AS sure FROM reviews WHERE length(review) BETWEEN 20 AND 2000
SELECT a.id, b.id, AI_SIMILARITY(a.body, b.body) AS alike FROM tickets a JOIN tickets b ON a.id < b.id AND AI_SIMILARITY(a.body, b.body) > 0.9
SELECT * EXCLUDE (embedding), list_cosine_similarity(embedding, AI_EMBED('refund')) AS near FROM tickets ORDER BY near DESC LIMIT 3
SELECT year(created) AS y, AI_SUMMARIZE_AGG(body) FROM tickets GROUP BY ALL ORDER BY y
SELECT CASE WHEN lang <> 'en' THEN AI_GENERATE('Translate to English: {body}') ELSE body END AS english FROM tickets
SELECT id, COALESCE(topic, AI_CLASSIFY(body, ['billing', 'bug'])) AS topic FROM tickets WHERE deleted IS NOT TRUE
SELECT AI_GENERATE(E'Q: {q}\nA:', max_tokens => 32, stop => [E'\n']) FROM questions USING 'hf:Qwen/Qwen3-0.6B'
SELECT count(*) FILTER (WHERE AI_FILTER('{body} is a complaint')) AS complaints, count(*) AS n FROM tickets
SELECT id, row_number() OVER (PARTITION BY customer ORDER BY AI_SCORE('urgency of {body}') DESC) AS rank FROM tickets QUALIFY rank = 1
GENERATE 'Reply politely to {customer}, who wrote: {body}' AS reply FROM tickets WHERE replied IS NULL USING smollm2 WITH max_tokens = 120, on_error = 'skip' INTO replies
CLASSIFY body IN ('billing', 'bug', 'praise') AS topic FROM 'tickets/*.jsonl' USING CASCADE (smollm2, large) WITH quality >= 0.95
SCORE 'How well does {resume} fit {job}?' BETWEEN 0 AND 100 AS fit FROM resumes CROSS JOIN jobs ORDER BY fit DESC LIMIT 10
EXTRACT body RETURNING STRUCT(invoice VARCHAR VERBATIM, total DECIMAL(12, 2) CHECK (total >= 0), due DATE, lines STRUCT(item VARCHAR, qty INTEGER)[]) AS invoice FROM mails
EMBED title || ' ' || body AS v FROM 'articles.parquet' USING minilm INTO 'vectors/' PARTITION BY (lang)
EXPLAIN ANALYZE SELECT AI_CLASSIFY(body, ['a', 'b']) FROM tickets WITH latency < 200ms
EXPLAIN (CANDIDATES, ON 'h100:8') CLASSIFY body IN ('a', 'b') FROM tickets WITH MINIMIZE cost
EVALUATE CLASSIFY body IN ('billing', 'bug') AS guess FROM tickets USING smollm2 AGAINST topic METRICS (accuracy)
COPY (SELECT id, AI_CLASSIFY(body, ['a', 'b']) AS c FROM tickets) TO 'topics.csv' (HEADER, FORMAT csv)
CREATE OR REPLACE TABLE topics AS CLASSIFY body IN ('billing', 'bug') AS topic FROM tickets USING smollm2
CREATE VIEW angry AS SELECT * FROM tickets WHERE AI_FILTER('{body} is angry')
CREATE FUNCTION sentiment(x) AS AI_CLASSIFY(x, ['positive', 'negative', 'neutral'])
SELECT (a.b).c, AI_FILTER('{a.b.c}') FROM t AS a
SELECT -AI_SCORE('x {a}') * 2 + 1 AS s, 1 - AI_SCORE('y {a}') / 10 FROM t
SELECT AI_FILTER('x {a}')::INT + AI_FILTER('y {a}')::INT AS votes FROM t
SELECT AI_GENERATE('x {a}') || '!' LIKE '%!' FROM t
SELECT AI_GENERATE('x') = ANY (SELECT b FROM u), AI_GENERATE('y') IN (SELECT c FROM v) FROM t
SELECT list_aggregate(list(AI_SCORE('x {a}')), 'max') FROM t
SELECT max(AI_SCORE('x {a}')) OVER (ORDER BY b ROWS BETWEEN 2 PRECEDING AND CURRENT ROW) FROM t
SELECT {'topic': AI_CLASSIFY(a, ['x', 'y']), 'score': AI_SCORE(a)} AS both FROM t
SELECT MAP {'k': AI_GENERATE('x {a}')}['k'] FROM t
SELECT unnest(AI_EXTRACT(body, VARCHAR[])) AS name FROM t
SELECT n.name FROM t, LATERAL (SELECT unnest(AI_EXTRACT(t.body, VARCHAR[])) AS name) AS n
SELECT try(AI_GENERATE('x {a}')), if(AI_FILTER('y {a}'), 1, 0) FROM t
SELECT AI_FILTER('{a}') FROM read_csv('x.csv', columns = {'a': 'VARCHAR'}) WHERE a IS NOT NULL
SELECT AI_FILTER('{a}') FROM t WHERE a ~ '^[a-z]+$' AND regexp_matches(b, '(?i)x')
SELECT strftime(created, '%Y-%m') AS month, AI_AGG(body) FROM t GROUP BY month
SELECT date_trunc('month', created) AS m, count(DISTINCT AI_CLASSIFY(body, ['a', 'b'])) FROM t GROUP BY m
SELECT AI_GENERATE($template) FROM t WHERE id = $id
SELECT AI_GENERATE('{a}', model => $model, temperature => $temperature, seed => 1) FROM t
SELECT AI_CLASSIFY(body, $labels) FROM t
SELECT AI_GENERATE(concat_ws(' ', a, b)) FROM t UNION ALL SELECT 'none'
SELECT x.g FROM (VALUES (AI_GENERATE('a')), ('b')) AS x(g)
SELECT a.*, b.* EXCLUDE (id) FROM a JOIN b USING (id) WHERE AI_FILTER('{a.x} agrees with {b.x}')
SELECT AI_FILTER('x') AND a > ALL ([1, 2]) OR NOT b BETWEEN 1 AND 3 FROM t
SELECT AI_FILTER('x') FROM t WHERE (SELECT count(*) FROM u WHERE u.a = t.a) > 3
SELECT AI_FILTER('x') FROM t WHERE EXISTS (FROM u WHERE u.a = t.a) AND a NOT IN (1, 2, 3)
SELECT current_date, now(), AI_FILTER('x'), pi(), random() FROM t
SELECT a AS "A b", AI_FILTER('x') AS "c""d" FROM t AS "my table"
SELECT AI_FILTER('x') FROM "tickets 2026.csv" AS t
SELECT AI_FILTER('x') FROM main.tickets, "other db".main.t
SELECT AI_FILTER('x') FROM t USING SAMPLE 10% (bernoulli)
SELECT AI_FILTER('x') FROM t USING SAMPLE 10 PERCENT (system, 377)
SELECT AI_FILTER('x') FROM t USING SAMPLE reservoir(50 ROWS) REPEATABLE (100)
SELECT AI_FILTER('x') FROM t TABLESAMPLE (3 ROWS)
SELECT AI_FILTER('x') FROM t AS u TABLESAMPLE (3) REPEATABLE (82), v
CREATE FUNCTION urgent(x) AS AI_FILTER('{x} needs an answer today')
CREATE ADAPTER name FOR model FROM 'path'
DESCRIBE MODEL name
SET name = value
RESET name
