CREATE TABLE tickets AS FROM (VALUES
    (1, 'ann',  'high', 'refund please, my refund!'),
    (2, 'bob',  'low',  'the app has a bug'),
    (3, 'cid',  'high', 'thanks for the praise'),
    (4, 'ann',  'low',  NULL),
    (5, 'dora', 'high', 'a bug!! a bug in my refund'),
    (6, 'bob',  'low',  ''),
    (7, NULL,   'high', 'the app has a bug')
) AS t(id, who, priority, body);
CREATE TABLE people AS FROM (VALUES ('ann', 'Paris'), ('bob', 'Rome'), ('eve', 'Oslo')) AS t(name, city);
CREATE TABLE topics AS FROM (VALUES ('refund', 'money back'), ('bug', 'it broke'), ('other', NULL)) AS t(name, about);
CREATE TABLE empty AS SELECT * FROM tickets WHERE false;
CREATE TABLE numbers AS SELECT i AS n, i % 3 AS k, 'n' || (i % 4) AS s FROM range(40) AS r(i)
