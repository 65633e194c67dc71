# A shelf of books: a Mojolicious application on SQLite. What it writes lies below DEMONSTRATION_STATE.
use Mojolicious::Lite -signatures;
use DBI;
use Mojo::File 'path';

my $HOME = path($ENV{DEMONSTRATION_STATE})->child('books');
my $TYPE = 'application/octet-stream';

app->mode('production');
app->log->level('warn');
app->secrets([$HOME->child('secret')->slurp]);
app->sessions->cookie_path('/perl')->samesite('Lax');
app->max_request_size(16 * 1024 * 1024);

# One connection for each worker: a handle must not be used by two processes, and workers are forked.
helper db => sub {
    state $db;
    state $owner = 0;
    return $db if $db && $owner == $$;
    $owner = $$;
    $db    = DBI->connect('dbi:SQLite:dbname=' . $HOME->child('books.sqlite3'),
        '', '', {RaiseError => 1, sqlite_unicode => 1, AutoInactiveDestroy => 1});
    $db->do('CREATE TABLE IF NOT EXISTS book (id INTEGER PRIMARY KEY, title TEXT, name TEXT, content BLOB)');
    return $db;
};

get '/' => sub ($c) {
    $c->render('shelf',
        books => $c->db->selectall_arrayref('SELECT id, title, name, length(content) AS size FROM book ORDER BY id',
            {Slice => {}}));
} => 'shelf';

post '/login' => sub ($c) {
    return $c->render(text => 'bad CSRF token', status => 403) if $c->validation->csrf_protect->has_error('csrf_token');
    $c->session(user => 'reader') if ($c->param('password') // '') eq 'demonstration';
    $c->flash(said => $c->session('user') ? 'Welcome.' : 'That is not the password.');
    $c->redirect_to('shelf');
} => 'login';

post '/logout' => sub ($c) {
    $c->session(expires => 1);
    $c->redirect_to('shelf');
} => 'logout';

post '/add' => sub ($c) {
    return $c->render(text => 'bad CSRF token', status => 403) if $c->validation->csrf_protect->has_error('csrf_token');
    return $c->render(text => 'log in first',   status => 403) unless $c->session('user');
    my $file = $c->param('file');
    return $c->render(text => 'no file', status => 400) unless ref $file && length $file->filename;
    my $add = $c->db->prepare('INSERT INTO book (title, name, content) VALUES (?, ?, ?)');
    $add->bind_param(1, $c->param('title'));
    $add->bind_param(2, $file->filename);
    $add->bind_param(3, $file->slurp, DBI::SQL_BLOB());
    $add->execute;
    $c->flash(said => 'It is on the shelf.');
    $c->redirect_to('shelf');
} => 'add';

get '/book/:id' => [id => qr/\d+/] => sub ($c) {
    my ($name, $content) = $c->db->selectrow_array('SELECT name, content FROM book WHERE id = ?', {}, $c->param('id'));
    return $c->reply->not_found unless defined $content;
    $name =~ s/[^\w.-]/_/g;
    $c->res->headers->content_disposition(qq{attachment; filename="$name"});
    $c->res->headers->content_type($TYPE);
    $c->render(data => $content);
} => 'book';

# Ten lines in ten seconds, each sent when it is there.
get '/count' => sub ($c) {
    my $number = 0;
    $c->res->headers->content_type('text/plain');
    my $next;
    $next = sub ($c, @) {
        return $c->finish if $number == 10;
        sleep 1 if $number;
        $c->write_chunk(++$number . "\n", $next);
    };
    $c->write_chunk("worker $$ counts to 10\n", $next);
} => 'count';

app->start;

__DATA__

@@ shelf.html.ep
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Books</title>
<link rel="icon" href="/static/mark.svg">
<link rel="stylesheet" href="/static/demonstration.css">
<h1>Books</h1>
<p>Mojolicious made this page in a Perl worker, from SQLite.</p>
% if (my $said = flash 'said') {
<p class="key"><%= $said %></p>
% }
% if (session 'user') {
%= form_for add => (enctype => 'multipart/form-data') => begin
%= csrf_field
<p><label>Title <%= text_field 'title', required => undef %></label>
<label>File <%= file_field 'file', required => undef %></label> <button>Put it on the shelf</button></p>
% end
%= form_for logout => (method => 'POST') => begin
<p><button>Log out</button></p>
% end
% } else {
%= form_for login => begin
%= csrf_field
<p><label>Password <%= password_field 'password' %></label> <button>Log in</button> It is <b>demonstration</b>.</p>
% end
% }
<ul>
% for my $book (@$books) {
<li><%= link_to $book->{title} => book => {id => $book->{id}} %> <small><%= $book->{name} %>, <%= $book->{size} %> bytes</small>
% }
</ul>
<p><a href="/">Back to the demonstration</a></p>
</html>
