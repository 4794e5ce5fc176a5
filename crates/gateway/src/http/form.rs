//! Which JSON a caller sends and wants: indented or not, payloads in short or in full.

/// One form of the API's JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Form {
    /// Indented.
    pub(crate) pretty: bool,
    /// Payloads as the JSON value that they hold, where they hold one.
    pub(crate) shorthand: bool,
}

impl Form {
    /// What callers get who ask for nothing.
    pub(crate) const DEFAULT: Form = Form { pretty: false, shorthand: true };

    /// The media type of this form.
    pub(crate) fn content_type(self) -> &'static str {
        match (self.pretty, self.shorthand) {
            (false, true) => "application/json",
            (true, true) => "application/json+pretty",
            (false, false) => "application/json+no-payload-shorthand",
            (true, false) => "application/json+pretty+no-payload-shorthand",
        }
    }

    /// The first form that a list of media types names, as in `Accept` and `Content-Type`;
    /// none if it names none of ours beside plain `application/json`.
    fn named(header: &str) -> Option<Form> {
        header.split(',').find_map(|kind| {
            let kind = kind.split(';').next().unwrap_or_default().trim();
            [(true, true), (false, false), (true, false)]
                .map(|(pretty, shorthand)| Form { pretty, shorthand })
                .into_iter()
                .find(|form| form.content_type() == kind)
        })
    }

    /// The form of the body, and the form of the answer, from a request's headers and query
    /// parameters. An answer that nothing is said about has the form of the body.
    pub(crate) fn of_request<'q>(
        content_type: &str,
        accept: &str,
        parameters: impl Iterator<Item = &'q str>,
    ) -> (Form, Form) {
        let body = Form::named(content_type).unwrap_or(Form::DEFAULT);
        let (mut pretty, mut long) = (false, false);
        for name in parameters {
            pretty |= name == "pretty";
            long |= name == "noPayloadShorthand";
        }
        let answer = if pretty || long {
            Form { pretty, shorthand: !long }
        } else {
            Form::named(accept).unwrap_or(body)
        };
        (body, answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRETTY: Form = Form { pretty: true, shorthand: true };
    const LONG: Form = Form { pretty: false, shorthand: false };

    fn of(content_type: &str, accept: &str, parameters: &[&str]) -> (Form, Form) {
        Form::of_request(content_type, accept, parameters.iter().copied())
    }

    #[test]
    fn the_default_is_short_and_on_one_line() {
        assert_eq!(of("", "", &[]), (Form::DEFAULT, Form::DEFAULT));
        assert_eq!(of("application/json", "*/*", &[]), (Form::DEFAULT, Form::DEFAULT));
    }

    #[test]
    fn accept_names_the_form_of_the_answer_only() {
        let accept = "text/html, application/json+pretty;q=0.9";
        assert_eq!(of("application/json", accept, &[]), (Form::DEFAULT, PRETTY));
    }

    #[test]
    fn the_body_s_form_is_the_answer_s_unless_said_otherwise() {
        let long = "application/json+no-payload-shorthand; charset=utf-8";
        assert_eq!(of(long, "application/json", &[]), (LONG, LONG));
        assert_eq!(of(long, "application/json+pretty", &[]), (LONG, PRETTY));
    }

    #[test]
    fn parameters_come_before_headers() {
        let accept = "application/json+no-payload-shorthand";
        assert_eq!(of("", accept, &["pretty"]), (Form::DEFAULT, PRETTY));
        let both = Form { pretty: true, shorthand: false };
        assert_eq!(of("", "", &["noPayloadShorthand", "pretty"]), (Form::DEFAULT, both));
    }
}
