-- purpose: The published analyses, and some that were never published, as queries to run, to read and to change. In the
--   shell set what differs from the defaults with: set variable name = value; and run the text of query.
-- grain: one row per analysis
-- columns: name; purpose; source: where it was published; parameters: name (type, default) and meaning of each;
--   grain, columns: of the result; reading: how to read it; example: on the command line; portable: yes, or why it does
--   not run on Spark; query: the SQL, with all this as its head
-- example: select name, source, purpose from analyses
create table analyses (
    name varchar not null,
    purpose varchar not null,
    source varchar not null,
    parameters varchar not null,
    grain varchar not null,
    columns varchar not null,
    reading varchar not null,
    example varchar not null,
    portable varchar not null,
    query varchar not null
);
